//! Calls of tools, joined from the fragments that providers send.
//!
//! It must not know any provider's wire format.

use crate::domain::Aside;

/// The most bytes of calls that are kept in one answer: of inputs what comes after is dropped, and
/// a call whose id and name do not fit is passed over.
const BYTES_MAX: usize = 1 << 20;
/// The most calls that are open at once; further ones are passed over.
const OPEN_MAX: usize = 128;

/// The calls of an answer that have begun and not ended.
#[derive(Default)]
pub(super) struct Calls {
    open: Vec<Call>,
    bytes: usize,
}

struct Call {
    index: Option<u64>,
    id: String,
    name: String,
    input: String,
    without_input: String,
}

impl Calls {
    /// A call begins. `without_input` is its input where no fragment of it comes.
    pub(super) fn begin(&mut self, index: Option<u64>, id: &str, name: &str, without_input: &str) {
        let bytes = self.bytes + id.len() + name.len() + without_input.len();
        if self.open.len() < OPEN_MAX && bytes <= BYTES_MAX {
            self.bytes = bytes;
            self.open.push(Call {
                index,
                id: id.to_owned(),
                name: name.to_owned(),
                input: String::new(),
                without_input: without_input.to_owned(),
            });
        }
    }

    /// The id of the open call at `index`, the newest of them; of all where there is no index.
    pub(super) fn id(&self, index: Option<u64>) -> Option<&str> {
        self.open.iter().rfind(|call| is_at(call, index)).map(|call| call.id.as_str())
    }

    /// More of the input of the open call at `index`, if there is one.
    pub(super) fn add(&mut self, index: Option<u64>, input: &str) {
        let Some(call) = self.open.iter_mut().rfind(|call| is_at(call, index)) else { return };
        let left = input.floor_char_boundary(BYTES_MAX.saturating_sub(self.bytes));
        call.input.push_str(&input[..left]);
        self.bytes += left;
    }

    /// The open calls at `index` are whole.
    pub(super) fn end(&mut self, index: Option<u64>) -> impl Iterator<Item = Aside> + '_ {
        self.open.extract_if(.., move |call| is_at(call, index)).filter_map(Call::into_aside)
    }

    /// All are whole.
    pub(super) fn end_all(&mut self) -> impl Iterator<Item = Aside> + '_ {
        self.open.drain(..).filter_map(Call::into_aside)
    }
}

impl Call {
    /// `None` for a call that names no tool.
    fn into_aside(self) -> Option<Aside> {
        let Self { id, name, input, without_input, .. } = self;
        let input = if input.is_empty() { without_input } else { input };
        (!name.is_empty()).then_some(Aside::Tool { id, name, input })
    }
}

#[cfg(test)]
impl Call {
    fn bytes(&self) -> usize {
        [&self.id, &self.name, &self.input, &self.without_input].iter().map(|s| s.len()).sum()
    }
}

fn is_at(call: &Call, index: Option<u64>) -> bool {
    index.is_none() || call.index == index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_calls_is_bounded() {
        let mut calls = Calls::default();
        for _ in 0..1000 {
            calls.begin(Some(1), "id", "name", "");
        }
        assert_eq!(calls.open.len(), OPEN_MAX);
        calls.add(Some(1), "x");
        for _ in 0..3 {
            calls.add(Some(1), &"é".repeat(BYTES_MAX / 4));
        }
        let bytes: usize = calls.open.iter().map(Call::bytes).sum();
        assert_eq!(bytes, BYTES_MAX - 1, "cut before half a character");
        assert_eq!(calls.end_all().count(), OPEN_MAX);

        let (mut calls, half) = (Calls::default(), "x".repeat(BYTES_MAX / 2));
        for (id, name, input) in [("", "name", &*half), (&*half, "name", ""), ("", &*half, "")] {
            calls.begin(Some(1), id, name, input);
        }
        let bytes: usize = calls.open.iter().map(Call::bytes).sum();
        assert_eq!((calls.open.len(), bytes), (1, BYTES_MAX / 2 + 4), "ids and names count, too");
    }
}
