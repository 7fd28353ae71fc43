//! Finds the known key or word that an unknown word resembles.

/// Longer words get no suggestion, because the comparison takes quadratic time.
const WORD_LENGTH_MAX: usize = 64;

/// The shortest text that counts as a part of a known word. A single letter is in most of them.
const PART_LENGTH_MIN: usize = 2;

/// Returns the most similar word of `known`, if any is similar enough.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > WORD_LENGTH_MAX {
        return None;
    }
    // `role-arn` and `ROLE_ARN` equal `role_arn`.
    let normal = |word: &str| word.to_lowercase().replace('-', "_");
    let word = normal(word);
    // Similar: at most one wrong character in three ("profil"), or one word contains the other ("store_id", "warning").
    let is_part = |part: &str, whole: &str| part.len() >= PART_LENGTH_MIN && whole.contains(part);
    let distance_if_near = |known: &str| {
        let distance = strsim::damerau_levenshtein(&word, known);
        let is_near = distance <= known.len().max(word.len()) / 3 || is_part(&word, known) || is_part(known, &word);
        is_near.then_some(distance)
    };
    known.into_iter().filter_map(|known| Some((distance_if_near(&normal(known))?, known))).min().map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_letter_is_not_similar_to_the_words_that_contain_it() {
        let known = ["id", "target", "external_id", "interval"];
        for (word, suggestion) in [
            ("", None),
            ("x", None),
            ("ids", Some("id")),
            ("job_id", Some("id")),
            ("external", Some("external_id")),
            ("Targets", Some("target")),
        ] {
            assert_eq!(nearest(word, known), suggestion, "{word}");
        }
        assert_eq!(nearest("eu-west", ["lab-eu-west", "a"]), Some("lab-eu-west"));
        assert_eq!(nearest("lab-east", ["a"]), None);
    }
}
