//! Searching in a user agent: case never matters, words are of ASCII letters, digits and `_`.

/// A user agent, prepared for many searches.
#[derive(Debug)]
pub(super) struct AgentText<'a> {
    text: &'a str,
    lower: String,
    /// Where words start, with the lower-case byte that they start with.
    word_starts: Vec<(usize, u8)>,
}

/// Whether a byte belongs to a word.
pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Whether a byte may stand in a version: a word's, or a point.
pub(super) fn is_version(byte: u8) -> bool {
    is_word(byte) || byte == b'.'
}

impl<'a> AgentText<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let lower = text.to_ascii_lowercase();
        let mut word_starts = Vec::new();
        let mut before = b' ';
        for (at, byte) in lower.bytes().enumerate() {
            if is_word(byte) && !is_word(before) {
                word_starts.push((at, byte));
            }
            before = byte;
        }
        Self { text, lower, word_starts }
    }

    /// The user agent as it is.
    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    /// The user agent in lower case; offsets are the same.
    pub(super) fn lower(&self) -> &str {
        &self.lower
    }

    /// The byte at an offset, in lower case; 0 behind the end.
    pub(super) fn at(&self, offset: usize) -> u8 {
        self.lower.as_bytes().get(offset).copied().unwrap_or(0)
    }

    /// Whether a lower-case text is somewhere.
    pub(super) fn has(&self, part: &str) -> bool {
        self.lower.contains(part)
    }

    /// Where a lower-case text ends, for each place where it stands.
    pub(super) fn ends_of<'s>(&'s self, part: &'s str) -> impl Iterator<Item = usize> + 's {
        let mut from = 0;
        std::iter::from_fn(move || {
            let at = self.lower.get(from..)?.find(part)? + from;
            // Parts are ASCII, so the next offset is a character boundary, too.
            from = at + 1;
            Some(at + part.len())
        })
    }

    /// Whether a word starts at an offset.
    pub(super) fn is_word_start(&self, offset: usize) -> bool {
        is_word(self.at(offset)) && (offset == 0 || !is_word(self.at(offset - 1)))
    }

    /// Whether a word ends before an offset.
    pub(super) fn is_word_end(&self, offset: usize) -> bool {
        offset > 0 && is_word(self.at(offset - 1)) && !is_word(self.at(offset))
    }

    /// How many bytes from an offset on satisfy a condition.
    pub(super) fn run(&self, offset: usize, condition: impl Fn(u8) -> bool) -> usize {
        let rest = self.lower.as_bytes().get(offset..).unwrap_or_default();
        rest.iter().take_while(|byte| condition(**byte)).count()
    }

    /// Start and end of the first place where a name stands at the start of a word.
    pub(super) fn find_at_word_start(&self, name: &str) -> Option<(usize, usize)> {
        self.places_at_word_start(name).next()
    }

    /// All such places.
    pub(super) fn places_at_word_start<'s>(
        &'s self,
        name: &'s str,
    ) -> impl Iterator<Item = (usize, usize)> + 's {
        let first = name.bytes().next().unwrap_or(0).to_ascii_lowercase();
        let starts = self.word_starts.iter().filter(move |(_, byte)| *byte == first);
        starts.filter_map(move |(at, _)| Some((*at, self.match_name(*at, name)?)))
    }

    /// Whether a name stands somewhere as words of its own.
    pub(super) fn has_word(&self, name: &str) -> bool {
        self.places_at_word_start(name).any(|(_, end)| self.is_word_end(end))
    }

    /// Where a name that stands at `at` ends. A space or `-` inside the name may be missing in the text.
    pub(super) fn match_name(&self, at: usize, name: &str) -> Option<usize> {
        let mut at = at;
        let last = name.len().saturating_sub(1);
        for (place, byte) in name.bytes().enumerate() {
            let is_there = self.lower.as_bytes().get(at) == Some(&byte.to_ascii_lowercase());
            if is_there {
                at += 1;
            } else if place == last || !matches!(byte, b' ' | b'-') {
                return None;
            }
        }
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_as_words() {
        let agent = AgentText::new("K-Meleon/7 GreenBrowser HeadlessChrome x_Chrome Windows Phone");
        for name in ["KMeleon", "Green Browser", "Windows Phone"] {
            assert_eq!(agent.has_word(name), name != "KMeleon", "{name}");
        }
        assert!(agent.has_word("K-Meleon"));
        assert!(!agent.has_word("Chrome"));
        assert!(!agent.has_word("Win"));
        assert_eq!(agent.find_at_word_start("Windows "), Some((48, 56)));
        assert_eq!(AgentText::new("Windows").find_at_word_start("Windows "), None);
    }

    #[test]
    fn parts_are_found_everywhere() {
        let agent = AgentText::new("aXaxé🦀ax");
        assert_eq!(agent.ends_of("ax").collect::<Vec<_>>(), [2, 4, 12]);
        assert!(agent.is_word_start(0) && !agent.is_word_start(1) && agent.is_word_start(10));
        assert!(agent.is_word_end(12) && agent.is_word_end(4));
    }
}
