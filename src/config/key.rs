//! Which key was meant by one that there is not, and which word by one that is none of a closed set.

use super::schema::tables_with;

/// Characters of a word that a suggestion is looked for: longer ones are no slip of the keys, and the search takes their square.
const NEAREST_LENGTH_MAX: usize = 64;

/// What others call our keys.
const OTHER_WORDS: [(&str, &str); 20] = [
    ("address", "listen"),
    ("arn", "role_arn"),
    ("bind", "listen"),
    ("database", "path"),
    ("db", "path"),
    ("dir", "directory"),
    ("every", "interval"),
    ("file", "directory"),
    ("folder", "directory"),
    ("frequency", "interval"),
    ("host", "listen"),
    ("label", "name"),
    ("max_age", "since"),
    ("port", "listen"),
    ("rate", "requests_per_second"),
    ("retain", "keep"),
    ("retention", "keep"),
    ("rps", "requests_per_second"),
    ("ttl", "keep"),
    ("url", "endpoint_url"),
];

/// Which of `known` was likely meant by `word`.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > NEAREST_LENGTH_MAX {
        return None;
    }
    let word = snake_case(word);
    // One slip in three characters ("profil", but not "port" for `path`), or an ending too much ("warning").
    let near = |distance: usize, known: &str| distance <= known.len().max(word.len()) / 3 || word.starts_with(known);
    let distances = known.map(|known| (strsim::damerau_levenshtein(&word, &snake_case(known)), known));
    distances.filter(|(distance, known)| near(*distance, &snake_case(known))).min().map(|(_, known)| known)
}

/// Which key of `known` was likely meant by `key`: one that is like it, one that it is a part of, one that is a part of it, or what
/// it is called elsewhere. One that is `there` already was not meant by a part.
pub(super) fn meant<'a>(key: &str, known: &[&'a str], there: impl Fn(&str) -> bool) -> Option<&'a str> {
    let is_part = |part: &str, whole: &str| format!("_{whole}_").contains(&format!("_{part}_"));
    let only_one = |fits: &dyn Fn(&str) -> bool| {
        let fitting: Vec<&str> = known.iter().copied().filter(|known| fits(known) && !there(known)).collect();
        fitting.first().copied().filter(|_| fitting.len() == 1)
    };
    let word = snake_case(key);
    let other_word = || OTHER_WORDS.into_iter().find(|(other, ours)| *other == word && known.contains(ours));
    nearest(key, known.iter().copied())
        .or_else(|| only_one(&|known| is_part(&word, known)))
        .or_else(|| only_one(&|known| is_part(known, &word)).filter(|_| tables_with(key).is_empty()))
        .or_else(|| known.iter().copied().find(|known| other_word().is_some_and(|(_, ours)| ours == *known)))
}

/// Where a key belongs that its table does not have.
pub(super) fn elsewhere(key: &str) -> Option<String> {
    let tables = tables_with(key);
    if tables == [None] {
        return Some(format!("`{key}` belongs to the file itself: it stands before the first [table]"));
    }
    let tables: Vec<String> = tables.into_iter().flatten().collect();
    let (last, others) = tables.split_last()?;
    let others = if others.is_empty() { String::new() } else { format!("{} and ", others.join(", ")) };
    Some(format!("`{key}` is a key of {others}{last}"))
}

/// `roleArn`, `role-arn` and `ROLE_ARN` are `role_arn` in other people's files.
fn snake_case(word: &str) -> String {
    let mut snake = String::new();
    let mut after_lower = false;
    for c in word.chars() {
        if c.is_ascii_uppercase() && after_lower {
            snake.push('_');
        }
        after_lower = c.is_ascii_lowercase();
        snake.push(if c == '-' { '_' } else { c.to_ascii_lowercase() });
    }
    snake
}
