//! An answer's text so far, measured in bytes inside and in UTF-16 code units at the dialects
//! that show offsets (`string.length` counts those in a browser).

/// A text that only grows, with both its lengths at hand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text {
    content: String,
    utf16_len: u64,
}

impl Text {
    /// Appends `delta`.
    pub fn push(&mut self, delta: &str) {
        self.content.push_str(delta);
        self.utf16_len += utf16_len(delta);
    }

    /// The whole of it.
    pub fn as_str(&self) -> &str {
        &self.content
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.content.len() as u64
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.content.is_empty()
    }

    /// Its length in UTF-16 code units.
    pub fn utf16_len(&self) -> u64 {
        self.utf16_len
    }

    /// What follows `offset` (bytes), and where that starts in UTF-16 code units. `None` where
    /// `offset` lies beyond the end or inside a character.
    pub fn after(&self, offset: u64) -> Option<(&str, u64)> {
        let rest = self.content.get(usize::try_from(offset).ok()?..)?;
        Some((rest, self.utf16_len - utf16_len(rest)))
    }

    /// The byte offset of a UTF-16 offset. `None` where that lies beyond the end or between the
    /// halves of a surrogate pair.
    pub fn byte_offset(&self, utf16_offset: u64) -> Option<u64> {
        if utf16_offset == self.utf16_len {
            return Some(self.len());
        }
        let mut units = 0;
        for (at, c) in self.content.char_indices() {
            if units == utf16_offset {
                return Some(at as u64);
            }
            units += c.len_utf16() as u64;
        }
        None
    }
}

impl From<String> for Text {
    fn from(content: String) -> Self {
        let utf16_len = utf16_len(&content);
        Self { content, utf16_len }
    }
}

/// The length of `text` in UTF-16 code units.
pub fn utf16_len(text: &str) -> u64 {
    if text.is_ascii() {
        return text.len() as u64;
    }
    text.chars().map(|c| c.len_utf16() as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_bytes_and_utf16_units_as_it_grows() {
        let mut text = Text::default();
        for delta in ["a", "é", "€", "😀", "z"] {
            text.push(delta);
        }
        assert_eq!(text.len(), 11);
        assert_eq!(text.utf16_len(), 6);
        assert_eq!(text, Text::from("aé€😀z".to_owned()));
    }

    #[test]
    fn what_follows_an_offset_knows_its_own_utf16_offset() {
        let text = Text::from("a😀z".to_owned());
        assert_eq!(text.after(0), Some(("a😀z", 0)));
        assert_eq!(text.after(1), Some(("😀z", 1)));
        assert_eq!(text.after(5), Some(("z", 3)));
        assert_eq!(text.after(6), Some(("", 4)));
        assert_eq!(text.after(2), None, "inside a character");
        assert_eq!(text.after(7), None, "beyond the end");
    }

    #[test]
    fn a_utf16_offset_maps_back_to_bytes_but_never_into_a_surrogate_pair() {
        let text = Text::from("a😀z".to_owned());
        let mapped: Vec<_> = (0..=5).map(|at| text.byte_offset(at)).collect();
        assert_eq!(mapped, [Some(0), Some(1), None, Some(5), Some(6), None]);
    }
}
