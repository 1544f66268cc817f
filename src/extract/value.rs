//! A JavaScript value: what a dump says where a rule takes whatever it finds.
//!
//! Used for the few members that are copied into the result or judged by JavaScript's conversion rules; what no
//! rule reads is skipped, never built. `Absent` stands for `undefined`.
//! Rules: feature extraction, words and sections 2, 13.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::js;
use super::json::{JsonError, Kind, Scanner};

/// Parts (values inside values) of one value to be kept. Clients send some dozens; a line of 4 MiB could hold
/// two million, at 24 bytes each.
const PARTS_MAX: usize = 100_000;
/// Objects with more members than this look their keys up in a hash table while they are built.
const LINEAR_MEMBERS_MAX: usize = 32;

/// A value of JavaScript.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// Not there: `undefined`.
    #[default]
    Absent,
    /// `null`
    Null,
    /// A boolean.
    Bool(bool),
    /// A number, always a double.
    Number(f64),
    /// A string.
    Text(Box<str>),
    /// An array.
    Array(Vec<Value>),
    /// An object.
    Object(Object),
}

impl Value {
    /// A text value.
    #[must_use]
    pub fn text(text: impl Into<Box<str>>) -> Self {
        Self::Text(text.into())
    }

    /// Whether it is `undefined`.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// Whether it is `null` or `undefined`: reading a member of it fails.
    #[must_use]
    pub fn is_nullish(&self) -> bool {
        matches!(self, Self::Absent | Self::Null)
    }

    /// Whether it counts as true.
    #[inline]
    #[must_use]
    pub fn is_truthy(&self) -> bool {
        match self {
            Self::Absent | Self::Null => false,
            Self::Bool(b) => *b,
            Self::Number(x) => js::is_truthy(*x),
            Self::Text(text) => !text.is_empty(),
            Self::Array(_) | Self::Object(_) => true,
        }
    }

    /// The string that it is.
    #[inline]
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Absent
            | Self::Null
            | Self::Bool(_)
            | Self::Number(_)
            | Self::Array(_)
            | Self::Object(_) => None,
        }
    }

    /// The number that it is.
    #[must_use]
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Self::Number(x) => Some(*x),
            Self::Absent | Self::Null | Self::Bool(_) | Self::Text(_) | Self::Array(_) | Self::Object(_) => {
                None
            }
        }
    }

    /// The object that it is.
    #[must_use]
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Self::Object(object) => Some(object),
            Self::Absent | Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) | Self::Array(_) => {
                None
            }
        }
    }

    /// A member; absent where this is no object or has none of that name.
    #[must_use]
    pub fn member(&self, name: &str) -> &Value {
        const ABSENT: &Value = &Value::Absent;
        self.as_object().and_then(|object| object.get(name)).unwrap_or(ABSENT)
    }

    /// JavaScript's `Number(value)`.
    #[inline]
    #[must_use]
    pub fn to_number(&self) -> f64 {
        match self {
            Self::Absent | Self::Array(_) | Self::Object(_) => f64::NAN,
            Self::Null => 0.0,
            Self::Bool(b) => f64::from(u8::from(*b)),
            Self::Number(x) => *x,
            Self::Text(text) => js::text_number(text),
        }
    }

    /// The number of a number or string, 0 for everything else (8.2.3: "number()").
    #[inline]
    #[must_use]
    pub fn number_or_zero(&self) -> f64 {
        let number = match self {
            Self::Number(x) => *x,
            Self::Text(text) => js::text_number(text),
            Self::Absent | Self::Null | Self::Bool(_) | Self::Array(_) | Self::Object(_) => 0.0,
        };
        if number.is_nan() { 0.0 } else { number }
    }

    /// The text as which it serves as a property key: JavaScript's `String(value)`.
    #[must_use]
    pub fn key_text(&self) -> Box<str> {
        match self {
            Self::Absent => "undefined".into(),
            Self::Null => "null".into(),
            Self::Bool(true) => "true".into(),
            Self::Bool(false) => "false".into(),
            Self::Number(x) => js::number_text(*x).into(),
            Self::Text(text) => text.clone(),
            Self::Array(items) => {
                let part = |item: &Value| if item.is_nullish() { Box::default() } else { item.key_text() };
                items.iter().map(part).collect::<Vec<_>>().join(",").into()
            }
            Self::Object(_) => "[object Object]".into(),
        }
    }

    /// Bytes that it holds beyond its own size; what state made of it costs.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Absent | Self::Null | Self::Bool(_) | Self::Number(_) => 0,
            Self::Text(text) => text.len(),
            Self::Array(items) => items.iter().map(|item| size_of::<Self>() + item.heap_bytes()).sum(),
            Self::Object(object) => object.heap_bytes(),
        }
    }

    /// Builds the value that comes next in a line.
    ///
    /// # Errors
    ///
    /// When it is not JSON, nests too deep (the recursion here goes as deep as the scanner allows), or has too
    /// many parts.
    pub fn read(scanner: &mut Scanner<'_>) -> Result<Self, JsonError> {
        let mut parts_left = PARTS_MAX;
        Self::read_part(scanner, &mut parts_left)
    }

    fn read_part(scanner: &mut Scanner<'_>, parts_left: &mut usize) -> Result<Self, JsonError> {
        *parts_left = parts_left.checked_sub(1).ok_or(JsonError::TooManyParts { parts_max: PARTS_MAX })?;
        match scanner.kind()? {
            Kind::Object => Object::read(scanner, parts_left).map(Self::Object),
            Kind::Array => {
                scanner.begin_array()?;
                let (mut first, mut items) = (true, Vec::new());
                while scanner.next_element(&mut first)? {
                    items.push(Self::read_part(scanner, parts_left)?);
                }
                Ok(Self::Array(items))
            }
            Kind::String | Kind::Number | Kind::True | Kind::False | Kind::Null => Self::read_scalar(scanner),
        }
    }

    /// Builds the next value if it is no container; containers are skipped and count as absent.
    ///
    /// # Errors
    ///
    /// When it is not JSON.
    #[inline]
    pub fn read_scalar(scanner: &mut Scanner<'_>) -> Result<Self, JsonError> {
        match scanner.kind()? {
            Kind::Number => scanner.number().map(Self::Number),
            Kind::String => Ok(Self::Text(scanner.string()?.decoded().into())),
            Kind::True => scanner.skip_word().map(|()| Self::Bool(true)),
            Kind::False => scanner.skip_word().map(|()| Self::Bool(false)),
            Kind::Null => scanner.skip_word().map(|()| Self::Null),
            Kind::Object | Kind::Array => scanner.skip_value().map(|()| Self::Absent),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Absent | Self::Null => serializer.serialize_unit(),
            Self::Bool(b) => serializer.serialize_bool(*b),
            Self::Number(x) => js::serialize_number(x, serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Array(items) => {
                let mut out = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| out.serialize_element(item))?;
                out.end()
            }
            Self::Object(object) => object.serialize(serializer),
        }
    }
}

/// An object: members in JavaScript's order (array indices ascending, then as inserted), none absent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Object {
    members: Vec<(Box<str>, Value)>,
}

impl Object {
    /// The members in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.members.iter().map(|(name, value)| (&**name, value))
    }

    /// How many members there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The member of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.members.iter().find(|(known, _)| &**known == name).map(|(_, value)| value)
    }

    /// Sets a member; a known one keeps its place. An absent value removes it.
    pub fn set(&mut self, name: &str, value: Value) {
        let found = self.members.iter().position(|(known, _)| &**known == name);
        match found {
            Some(at) if value.is_absent() => {
                self.members.remove(at);
            }
            Some(at) => {
                if let Some((_, old)) = self.members.get_mut(at) {
                    *old = value;
                }
            }
            None if value.is_absent() => {}
            None => self.insert_new(name.into(), value),
        }
    }

    /// Bytes that the members take.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let member = |(name, value): &(Box<str>, Value)| {
            size_of_val(name) + name.len() + size_of_val(value) + value.heap_bytes()
        };
        self.members.iter().map(member).sum()
    }

    fn insert_new(&mut self, name: Box<str>, value: Value) {
        let at = match js::array_index(&name) {
            None => self.members.len(),
            Some(index) => self
                .members
                .iter()
                .position(|(known, _)| js::array_index(known).is_none_or(|other| other > index))
                .unwrap_or(self.members.len()),
        };
        self.members.insert(at, (name, value));
    }

    fn read(scanner: &mut Scanner<'_>, parts_left: &mut usize) -> Result<Self, JsonError> {
        scanner.begin_object()?;
        let (mut first, mut builder) = (true, ObjectBuilder::default());
        while let Some(key) = scanner.next_key(&mut first)? {
            let value = Value::read_part(scanner, parts_left)?;
            builder.set(key.decoded().into(), value);
        }
        Ok(builder.finish())
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_map(Some(self.members.len()))?;
        for (name, value) in &self.members {
            out.serialize_entry(&**name, value)?;
        }
        out.end()
    }
}

impl FromIterator<(Box<str>, Value)> for Object {
    fn from_iter<I: IntoIterator<Item = (Box<str>, Value)>>(members: I) -> Self {
        let mut builder = ObjectBuilder::default();
        for (name, value) in members {
            builder.set(name, value);
        }
        builder.finish()
    }
}

/// An object being read: the last of repeated keys wins, at the place of the first.
#[derive(Debug, Default)]
struct ObjectBuilder {
    members: Vec<(Box<str>, Value)>,
    places: std::collections::HashMap<Box<str>, usize>,
    has_indices: bool,
}

impl ObjectBuilder {
    fn set(&mut self, name: Box<str>, value: Value) {
        let place = if self.members.len() <= LINEAR_MEMBERS_MAX {
            self.members.iter().position(|(known, _)| *known == name)
        } else {
            if self.places.is_empty() {
                self.places =
                    self.members.iter().enumerate().map(|(at, (name, _))| (name.clone(), at)).collect();
            }
            self.places.get(&name).copied()
        };
        if let Some((_, old)) = place.and_then(|at| self.members.get_mut(at)) {
            *old = value;
            return;
        }
        if !self.places.is_empty() {
            self.places.insert(name.clone(), self.members.len());
        }
        self.has_indices |= js::array_index(&name).is_some();
        self.members.push((name, value));
    }

    fn finish(mut self) -> Object {
        if self.has_indices {
            // Stable: keys that are no indices stay in the order of insertion, behind the others.
            self.members.sort_by_key(|(name, _)| js::array_index(name).map_or(u64::MAX, u64::from));
        }
        Object { members: self.members }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Value {
        let mut scanner = Scanner::new(text, 64);
        let value = Value::read(&mut scanner).unwrap();
        scanner.end().unwrap();
        value
    }

    #[test]
    fn values_are_written_as_json_stringify_does() {
        let cases = [
            (
                r#"{ "b" : 1.0 , "10":2, "2":-0, "a":[null,true,"\u0001\u2028\/"], "b":1e21 }"#,
                "{\"2\":0,\"10\":2,\"b\":1e+21,\"a\":[null,true,\"\\u0001\u{2028}/\"]}",
            ),
            ("1e400", "null"),
            (r#"{"__proto__":1,"constructor":{}}"#, r#"{"__proto__":1,"constructor":{}}"#),
        ];
        for (input, output) in cases {
            assert_eq!(serde_json::to_string(&read(input)).unwrap(), output);
        }
    }

    #[test]
    fn large_objects_keep_the_last_of_repeated_keys() {
        let members: Vec<String> = (0..100).chain(0..100).map(|i| format!("\"k{}\":{i}", i % 70)).collect();
        let value = read(&format!("{{{}}}", members.join(",")));
        assert_eq!(value.as_object().unwrap().len(), 70);
        assert_eq!(value.member("k5"), &Value::Number(75.0));
        assert_eq!(value.member("k69"), &Value::Number(69.0));
        assert_eq!(value.as_object().unwrap().iter().next().unwrap().0, "k0");
    }

    #[test]
    fn parts_are_limited() {
        let text = format!("[{}0]", "0,".repeat(PARTS_MAX));
        assert_eq!(
            Value::read(&mut Scanner::new(&text, 9)),
            Err(JsonError::TooManyParts { parts_max: PARTS_MAX })
        );
    }

    #[test]
    fn the_deepest_nesting_fits_the_stack_of_a_thread() {
        // Reading, writing and dropping recurse; this is a test thread with the usual 2 MiB, without optimisation.
        let depth = crate::extract::NESTING_CEILING / 2;
        let text = format!("{}1{}", "{\"a\":[".repeat(depth), "]}".repeat(depth));
        let value = Value::read(&mut Scanner::new(&text, crate::extract::NESTING_CEILING)).unwrap();
        assert_eq!(serde_json::to_string(&value).unwrap(), text);
        assert!(value.heap_bytes() > 0 && value.clone() == value);
    }

    #[test]
    fn conversions_follow_javascript() {
        let cases = [
            (Value::Absent, false, f64::NAN, 0.0, "undefined"),
            (Value::Null, false, 0.0, 0.0, "null"),
            (Value::Bool(true), true, 1.0, 0.0, "true"),
            (Value::Number(f64::NAN), false, f64::NAN, 0.0, "NaN"),
            (Value::Number(5.5), true, 5.5, 5.5, "5.5"),
            (Value::text(""), false, 0.0, 0.0, ""),
            (Value::text("7"), true, 7.0, 7.0, "7"),
            (Value::text("x"), true, f64::NAN, 0.0, "x"),
            (read("[1,null,[2,3]]"), true, f64::NAN, 0.0, "1,,2,3"),
            (read("{}"), true, f64::NAN, 0.0, "[object Object]"),
        ];
        for (value, truthy, number, or_zero, key) in cases {
            assert_eq!(value.is_truthy(), truthy, "{value:?}");
            assert_eq!(value.to_number().to_bits(), number.to_bits(), "{value:?}");
            assert_eq!(value.number_or_zero(), or_zero, "{value:?}");
            assert_eq!(&*value.key_text(), key, "{value:?}");
        }
    }

    #[test]
    fn members_are_set_in_javascripts_order() {
        let mut object = Object::default();
        for (name, value) in [("b", 1.0), ("10", 2.0), ("a", 3.0), ("9", 4.0), ("b", 5.0)] {
            object.set(name, Value::Number(value));
        }
        object.set("a", Value::Absent);
        object.set("none", Value::Absent);
        assert_eq!(serde_json::to_string(&object).unwrap(), r#"{"9":4,"10":2,"b":5}"#);
    }
}
