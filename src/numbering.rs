//! Entry numbers: does an entry carry one, and may it be acknowledged by it? Pure.
//!
//! The browser client appends its clock (ms) and a running number to every entry's array, whatever its length;
//! older clients append the clock only. So an entry is numbered when its array ends in a clock, that is, a number
//! above [`CLOCK_MIN`], followed by a smaller positive integer. The client finds an acknowledged entry by array
//! element 4, so only entries of five elements can be acknowledged.
//! Rules: our contract, "who is numbered"; client: entries and sequence numbers.

use crate::blocks::{BLOCK_BYTES, Bytes, Strings};

/// Integers above this are clocks in milliseconds (1973 and later), never entry numbers.
pub const CLOCK_MIN: u64 = 100_000_000_000;

/// The number of the entry whose array is `line`, without line end; `None` when it is not numbered.
#[must_use]
pub fn entry_number(line: &[u8]) -> Option<u64> {
    let (rest, number) = integer_from_end(line.strip_suffix(b"]")?)?;
    let (rest, clock) = integer_from_end(rest.strip_suffix(b",")?)?;
    let in_array = matches!(rest.last(), Some(b',' | b'['));
    (in_array && clock > CLOCK_MIN && (1..clock).contains(&number)).then_some(number)
}

/// The number of a dump line: of the line itself when it is an array (RTCSTATS clients), else of the array in the
/// `data` of the recorded request (all others; `3.1_LEGACY` is the numbering client in that dialect).
#[must_use]
pub fn line_number(line: &[u8]) -> Option<u64> {
    match line.first() {
        Some(b'[') => entry_number(line),
        Some(b'{') => entry_number(recorded_data(line)?),
        _ => None,
    }
}

/// Whether the entry of a dump line has its number at element 4, so that its client finds it there.
#[must_use]
pub fn is_acknowledgeable(line: &[u8]) -> bool {
    if line.first() == Some(&b'[') {
        return has_five_elements(line);
    }
    let Some(data) = recorded_data(line) else { return false };
    // Inside a JSON string every quote of the array is escaped; one level of backslashes taken off shows its structure.
    let is_text = data.windows(2).any(|pair| pair == br#"\""#);
    if is_text { has_five_elements(&unescape_quotes(data)) } else { has_five_elements(data) }
}

/// The text of the array in the member `data` of a recorded request, which ends in a `timestamp` of ours:
/// `..."data":[...],"timestamp":1}` or `..."data":"[...]","timestamp":1}`.
fn recorded_data(line: &[u8]) -> Option<&[u8]> {
    const KEY: &[u8] = b"\"data\":";
    const STAMP: &[u8] = b",\"timestamp\":";
    let (before, _) = integer_from_end(line.strip_suffix(b"}")?)?;
    let before = before.strip_suffix(STAMP)?;
    let start = before.windows(KEY.len()).position(|window| window == KEY)? + KEY.len();
    let data = before.get(start..)?;
    match data.first() {
        Some(b'"') => data.get(1..)?.strip_suffix(b"\""),
        Some(b'[') => Some(data),
        _ => None,
    }
}

fn unescape_quotes(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        if *byte == b'\\' { plain.extend(rest.next()) } else { plain.push(*byte) }
    }
    plain
}

/// Splits trailing ASCII digits off. JSON allows no leading zero and no sign is accepted here.
fn integer_from_end(text: &[u8]) -> Option<(&[u8], u64)> {
    let digits = text.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let (rest, digits) = text.split_at_checked(text.len() - digits)?;
    if digits.is_empty() || digits.len() > 19 || (digits.len() > 1 && digits.first() == Some(&b'0')) {
        return None;
    }
    let value =
        digits.iter().try_fold(0_u64, |sum, b| sum.checked_mul(10)?.checked_add(u64::from(b - b'0')))?;
    Some((rest, value))
}

/// Whether `line`, valid JSON, is an array of exactly five elements.
///
/// The third of them is most of the line, so the line is searched for brackets; commas count only where the depth is 1.
#[must_use]
pub fn has_five_elements(line: &[u8]) -> bool {
    let (mut commas, mut depth) = (0, 0_u32);
    let mut strings = Strings::default();
    let (blocks, rest) = line.as_chunks::<BLOCK_BYTES>();
    let mut last = [b' '; BLOCK_BYTES];
    for (filled, byte) in last.iter_mut().zip(rest) {
        *filled = *byte;
    }
    for block in blocks.iter().chain([&last]) {
        let bytes = Bytes::of(block);
        let outside = !strings.next(bytes);
        // With this bit square brackets are curly ones.
        let curly = bytes.with(0x20);
        let (opening, closing) = (curly.equal(b'{') & outside, curly.equal(b'}') & outside);
        if depth > closing.count_ones() + 1 {
            // Whatever the order, it stays below the first level: so it is with nearly all blocks.
            depth = depth + opening.count_ones() - closing.count_ones();
            continue;
        }
        let (mut brackets, mut rest) = (opening | closing, u64::MAX);
        loop {
            // The lowest bracket, or no bit for none; what is below it is on one level.
            let bracket = brackets & brackets.wrapping_neg();
            if depth == 1 {
                let level = rest & bracket.wrapping_sub(1);
                commas += (bytes.equal(b',') & outside & level).count_ones();
            }
            if bracket == 0 {
                break;
            }
            depth = if opening & bracket != 0 { depth + 1 } else { depth.saturating_sub(1) };
            rest = !(bracket | bracket.wrapping_sub(1));
            brackets &= rest;
        }
    }
    commas == 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_number_is_the_last_element_after_a_clock() {
        let cases: [(&str, Option<u64>, bool); 16] = [
            (r#"["identity",null,{"a":[1,2]},1700000000000,7]"#, Some(7), true),
            (r#"["getstats","PC_0",{"a":"x,]\"y"},1700000000000,8]"#, Some(8), true),
            (r#"["type","PC_0",1700000000000,3]"#, Some(3), false),
            (r#"["type",1700000000000,2]"#, Some(2), false),
            (r#"[1700000000000,2]"#, Some(2), false),
            (r#"["type","pc",1,2,1700000000000,9]"#, Some(9), false),
            (r#"["type","pc",null,1700000000000]"#, None, false),
            (r#"["type","pc",null,1700000000000,1700000000001]"#, None, true),
            (r#"["type","pc",null,99999999999,5]"#, None, true),
            (r#"["type","pc",null,1700000000000,0]"#, None, true),
            (r#"["type","pc",null,1700000000000,-5]"#, None, true),
            (r#"["type","pc",null,1700000000000,5.5]"#, None, true),
            (r#"["type","pc",null,1700000000000.5,5]"#, None, true),
            (r#"["type","pc",null,"1700000000000",5]"#, None, true),
            (r#"{"a":[1700000000000,5]}"#, None, false),
            ("[]", None, false),
        ];
        for (line, number, five) in cases {
            assert_eq!(entry_number(line.as_bytes()), number, "{line}");
            assert_eq!(has_five_elements(line.as_bytes()), five, "{line}");
        }
        assert_eq!(entry_number(b"[1700000000000,99999999999999999999]"), None);
    }

    #[test]
    fn a_recorded_request_is_numbered_by_its_data() {
        let cases: [(&str, Option<u64>, bool); 6] = [
            (
                r#"{"type":"identity","data":["identity",null,{"a":"[,"},1700000000000,7],"timestamp":1700000000009}"#,
                Some(7),
                true,
            ),
            (
                r#"{"type":"stats-entry","data":"[\"t\",null,{\"a\":\"b,\"},1700000000000,8]","timestamp":1700000000009}"#,
                Some(8),
                true,
            ),
            (
                r#"{"type":"stats-entry","data":"[\"t\",null,1700000000000,8]","timestamp":1700000000009}"#,
                Some(8),
                false,
            ),
            (
                r#"{"type":"stats-entry","data":{"a":[1700000000000,8]},"timestamp":1700000000009}"#,
                None,
                false,
            ),
            (r#"{"type":"stats-entry","data":"x","timestamp":1700000000009}"#, None, false),
            (r#"{"type":"stats-entry","timestamp":1700000000009}"#, None, false),
        ];
        for (line, number, acknowledgeable) in cases {
            assert_eq!(line_number(line.as_bytes()), number, "{line}");
            assert_eq!(is_acknowledgeable(line.as_bytes()), acknowledgeable, "{line}");
        }
        assert_eq!(line_number(br#"["t",null,null,1700000000000,3]"#), Some(3));
    }

    proptest! {
        #[test]
        fn elements_are_counted_as_a_parser_does(
            elements in proptest::collection::vec("[\\[\\]{},\"\\\\:a]{0,90}", 0..8),
            nested in 0_usize..8,
        ) {
            let mut array: Vec<serde_json::Value> = elements.into_iter().map(serde_json::Value::from).collect();
            if let Some(element) = array.get_mut(nested) {
                *element = serde_json::json!({"a,": [element, [], {"}": element}], "b": {}});
            }
            let line = serde_json::to_string(&array).expect("JSON");
            prop_assert_eq!(has_five_elements(line.as_bytes()), array.len() == 5, "{}", line);
        }
    }
}
