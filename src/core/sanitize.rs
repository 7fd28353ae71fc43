//! The sanitiser of untrusted text. Logs, pages, terminals, metrics and diagnostics all use it.

use std::fmt::{self, Display, Write};

/// Writes text on one line. Characters that could affect a display become `\uXXXX`: control characters, line and paragraph
/// separators, bidirectional marks and other invisible format characters. The escapes are JSON's, so JSON on one line stays valid.
#[derive(Clone, Copy, Debug)]
pub struct Sanitized<'a>(pub &'a str);

impl Display for Sanitized<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if is_unsafe_to_display(c) {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(f, "\\u{unit:04x}")?;
                }
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// The first `limit` characters of `text`, then `…` if there are more.
#[must_use]
pub fn excerpt(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// True for Unicode's control and format characters (categories Cc and Cf) and its line and paragraph separators.
#[must_use]
pub fn is_unsafe_to_display(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}'
            | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0001}' | '\u{e0020}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_and_format_characters_are_escaped() {
        let shown = |text| Sanitized(text).to_string();
        assert_eq!(shown("a\nb\x1b[31m\u{202e}c"), r"a\u000ab\u001b[31m\u202ec");
        assert_eq!(shown("\u{e0041}"), r"\udb40\udc41");
        assert_eq!(shown("GRCh38 – ‘ä’ 参照 <b>\"\\"), "GRCh38 – ‘ä’ 参照 <b>\"\\");
    }

    #[test]
    fn an_excerpt_is_cut_between_characters_and_ends_with_an_ellipsis() {
        assert_eq!(excerpt("äöü", 2), "äö…");
        assert_eq!(excerpt("äöü", 3), "äöü");
    }
}
