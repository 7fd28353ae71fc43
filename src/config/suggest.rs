//! Finds the known key or word that an unknown one resembles.

/// Longer words are no typing errors, and the search takes quadratic time.
const WORD_LENGTH_MAX: usize = 64;

/// The most similar one of `known`, if any is similar.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > WORD_LENGTH_MAX {
        return None;
    }
    // `role-arn` and `ROLE_ARN` are `role_arn`.
    let normal = |word: &str| word.to_lowercase().replace('-', "_");
    let word = normal(word);
    // One wrong character in three ("profil"), or one is a part of the other ("store_id", "warning").
    let is_near = |distance: usize, known: &str| {
        distance <= known.len().max(word.len()) / 3 || known.contains(&*word) || word.contains(known)
    };
    let distances = known.into_iter().map(|known| (strsim::damerau_levenshtein(&word, &normal(known)), known));
    distances.filter(|(distance, known)| is_near(*distance, known)).min().map(|(_, known)| known)
}
