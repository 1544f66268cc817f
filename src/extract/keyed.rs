//! A map as JavaScript's objects are used for one: keyed by text, iterated in JavaScript's key order.
//!
//! Keys that are array indices (ssrcs, mostly) are kept as numbers, so that finding a track costs no text.
//! Places never change, so a place found once is a hint that only has to be compared the next time.

use std::collections::HashMap;

use super::js;
use super::value::Value;

/// A property key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// A canonical array index.
    Index(u32),
    /// Any other text.
    Name(Box<str>),
}

impl Key {
    /// The key that a text is.
    pub(super) fn of_text(text: &str) -> Self {
        js::array_index(text).map_or_else(|| Self::Name(text.into()), Self::Index)
    }

    /// The key that a value is turned into.
    pub(super) fn of(value: &Value) -> Self {
        match value {
            Value::Number(x) if *x >= 0.0 && *x < f64::from(u32::MAX) && x.fract() == 0.0 =>
            {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
                Self::Index(*x as u32)
            }
            Value::Text(text) => Self::of_text(text),
            Value::Absent
            | Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => Self::Name(value.key_text()),
        }
    }

    /// Whether this is the key that `value` is turned into, without building that.
    pub(super) fn is_of(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Index(index), Value::Number(x)) => f64::from(*index) == *x,
            (Self::Name(name), Value::Text(text)) => name == text,
            _ => *self == Self::of(value),
        }
    }

    /// Bytes that it holds beyond its own size.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Index(_) => 0,
            Self::Name(name) => name.len(),
        }
    }

    /// The key as text.
    pub(super) fn text(&self) -> Box<str> {
        match self {
            Self::Index(index) => index.to_string().into(),
            Self::Name(name) => name.clone(),
        }
    }
}

/// The map.
#[derive(Debug)]
pub(super) struct Keyed<V> {
    places: HashMap<Key, usize>,
    entries: Vec<(Key, V)>,
}

impl<V> Default for Keyed<V> {
    fn default() -> Self {
        Self { places: HashMap::new(), entries: Vec::new() }
    }
}

impl<V> Keyed<V> {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The place of a key.
    pub(super) fn place(&self, key: &Key) -> Option<usize> {
        self.places.get(key).copied()
    }

    /// Adds a key that is not there yet, last among those that are no indices.
    pub(super) fn add(&mut self, key: Key, value: V) -> usize {
        let place = self.entries.len();
        self.places.insert(key.clone(), place);
        self.entries.push((key, value));
        place
    }

    pub(super) fn at(&self, place: usize) -> Option<(&Key, &V)> {
        self.entries.get(place).map(|(key, value)| (key, value))
    }

    pub(super) fn at_mut(&mut self, place: usize) -> Option<&mut V> {
        self.entries.get_mut(place).map(|(_, value)| value)
    }

    pub(super) fn get(&self, key: &Key) -> Option<&V> {
        self.place(key).and_then(|place| self.at(place)).map(|(_, value)| value)
    }

    /// All entries, in the order in which they were added.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&Key, &mut V)> {
        self.entries.iter_mut().map(|(key, value)| (&*key, value))
    }

    /// All entries in JavaScript's order: indices ascending, then the others as they were added.
    pub(super) fn into_ordered(mut self) -> Vec<(Key, V)> {
        self.entries.sort_by_key(|(key, _)| match key {
            Key::Index(index) => u64::from(*index),
            Key::Name(_) => u64::MAX,
        });
        self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_their_texts_are_the_same_key() {
        let cases = [
            (Value::Number(5.0), Key::Index(5)),
            (Value::text("5"), Key::Index(5)),
            (Value::text("05"), Key::Name("05".into())),
            (Value::Number(-1.0), Key::Name("-1".into())),
            (Value::Number(1.5), Key::Name("1.5".into())),
            (Value::Number(4_294_967_295.0), Key::Name("4294967295".into())),
            (Value::Number(-0.0), Key::Index(0)),
            (Value::Absent, Key::Name("undefined".into())),
            (Value::text("__proto__"), Key::Name("__proto__".into())),
        ];
        for (value, key) in cases {
            assert_eq!(Key::of(&value), key);
            assert!(key.is_of(&value));
            assert!(!Key::Index(6).is_of(&value));
        }
    }

    #[test]
    fn iteration_is_in_javascripts_order() {
        let mut map = Keyed::default();
        for text in ["b", "10", "a", "9", "4294967295"] {
            map.add(Key::of_text(text), ());
        }
        assert_eq!(map.place(&Key::Index(9)), Some(3));
        let order: Vec<_> = map.into_ordered().into_iter().map(|(key, ())| key.text()).collect();
        assert_eq!(order.iter().map(|t| &**t).collect::<Vec<_>>(), ["9", "10", "b", "a", "4294967295"]);
    }
}
