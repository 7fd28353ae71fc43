//! Finds the key or word that was probably meant by an unknown one.

/// Longer words are no typing errors, and the search takes quadratic time.
const WORD_LENGTH_MAX: usize = 64;

/// Other programs' names for our keys.
fn synonym(word: &str) -> Option<&'static str> {
    Some(match word {
        "address" | "bind" | "host" | "port" => "listen",
        "arn" => "role_arn",
        "database" | "db" => "path",
        "dir" | "file" | "folder" => "directory",
        "every" | "frequency" => "interval",
        "label" => "name",
        "max_age" => "since",
        "rate" | "rps" => "requests_per_second",
        "retain" | "retention" | "ttl" => "keep",
        "url" => "endpoint_url",
        _ => return None,
    })
}

/// The most similar one of `known`, if any is similar.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > WORD_LENGTH_MAX {
        return None;
    }
    let word = snake_case(word);
    // One wrong character in three ("profil", but not "port" for `path`), or additional ones at the end ("warning").
    let is_near = |distance: usize, known: &str| distance <= known.len().max(word.len()) / 3 || word.starts_with(known);
    let distances = known.into_iter().map(|known| (strsim::damerau_levenshtein(&word, &snake_case(known)), known));
    distances.filter(|(distance, known)| is_near(*distance, known)).min().map(|(_, known)| known)
}

/// The key of `known` that `key` was meant to be: a similar one, the only one with a word in common, or a synonym. `is_elsewhere` says
/// that another table has the key, `is_used` that a key is in the table already.
pub(super) fn meant<'a>(
    key: &str,
    known: &[&'a str],
    is_elsewhere: bool,
    is_used: impl Fn(&str) -> bool,
) -> Option<&'a str> {
    let is_part = |part: &str, whole: &str| format!("_{whole}_").contains(&format!("_{part}_"));
    let only_one = |fits: &dyn Fn(&str) -> bool| {
        let fitting: Vec<&str> = known.iter().copied().filter(|known| fits(known) && !is_used(known)).collect();
        fitting.first().copied().filter(|_| fitting.len() == 1)
    };
    let word = snake_case(key);
    nearest(key, known.iter().copied())
        .or_else(|| only_one(&|known| is_part(&word, known)))
        .or_else(|| only_one(&|known| !is_elsewhere && is_part(known, &word)))
        .or_else(|| known.iter().copied().find(|known| synonym(&word) == Some(known)))
}

/// `roleArn`, `role-arn` and `ROLE_ARN` become `role_arn`.
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
