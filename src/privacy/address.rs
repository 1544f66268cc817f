//! What an address is when it is cut, and what looks like one.
//!
//! Pure, on ASCII without escapes. Rules: ours, see [`super`]; RFC 4291 2.2 for the forms of IPv6, RFC 6052 2.1 and RFC 8215 5
//! for the prefix of translators.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::looked_at;

/// Bits of an IPv6 address that stay: what a site has. The last 80 are the subscriber's.
const V6_BITS: u32 = 48;
/// Groups of an IPv6 address.
const V6_GROUPS: usize = 8;
/// Digits of such a group at most.
const V6_GROUP_DIGITS_MAX: usize = 4;
/// Length of an IPv4 address at most.
pub(super) const V4_BYTES_MAX: usize = 15;
/// Groups of two digits from which on they are the fingerprint of a certificate: the shortest that is used (MD5) has 16.
const FINGERPRINT_GROUPS_MIN: usize = 16;

/// Whether `text` is an IPv4 address of somebody, and more than a network. Its last octet is what is cut.
pub(super) fn is_v4_of_somebody(text: &[u8]) -> bool {
    v4(text).is_some_and(|[first, _, _, last]| !matches!(first, 0 | 127) && last != 0)
}

/// The octets of an IPv4 address. Leading zeros are let through: better one number too many than one too few.
pub(super) fn v4(text: &[u8]) -> Option<[u16; 4]> {
    let mut octets = [0; 4];
    let mut parts = text.split(|byte| *byte == b'.');
    for octet in &mut octets {
        *octet = decimal(parts.next()?).filter(|number| *number <= 255)?;
    }
    parts.next().is_none().then_some(octets)
}

/// One to three digits.
fn decimal(digits: &[u8]) -> Option<u16> {
    if !(1..=3).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0')))
}

/// The first IPv6 address in `text`, at `start` or behind it, of which there is something to be cut: where it stands, and what it
/// is when it is cut. `text` consists of hexadecimal digits and colons, perhaps with a dotted number behind the last colon; an
/// address in it may have a port or more behind it.
///
/// Looks at what it passes over, and at the groups of one address, so calls that go on behind the last find take a time that
/// grows with `text`, whatever that is.
pub(super) fn first_v6(text: &[u8], mut start: usize) -> Option<(Range<usize>, Ipv6Addr)> {
    loop {
        let rest = text.get(start..)?;
        match v6_at(rest) {
            Some((len, address)) if !is_fingerprint(rest) => {
                let cut = cut_v6(address);
                if cut != address {
                    return Some((start..start + len, cut));
                }
                start += len;
            }
            Some(_) | None => {
                let group_len = memchr::memchr(b':', rest)?;
                looked_at(group_len);
                start += group_len + 1;
            }
        }
    }
}

/// The longest IPv6 address of somebody that `text` begins with, and its length.
fn v6_at(text: &[u8]) -> Option<(usize, Ipv6Addr)> {
    // Nearly always the end: of times, of bytes in hexadecimal.
    if !may_begin_address(text) {
        return None;
    }
    let form = Form::of(text)?;
    looked_at(form.len);
    let address: Ipv6Addr = std::str::from_utf8(text.get(..form.len)?).ok()?.parse().ok()?;
    let is_somebodys = match address.segments() {
        // The dotted part of an IPv4 address with a prefix that says no more than that is cut where it stands.
        [0, 0, 0, 0, 0 | 0xffff, 0 | 0xffff, high, _] => !form.is_dotted && !matches!(high >> 8, 0 | 127),
        [0x64, 0xff9b, ..] => true,
        // No address of somebody begins with one or two digits; times do, and bytes in hexadecimal.
        [first, ..] => first > 0xff,
    };
    is_somebodys.then_some((form.len, address))
}

/// No address of somebody begins with a group of one or two digits that has another value than 0 or 64.
fn may_begin_address(text: &[u8]) -> bool {
    let digits = digits_at(text);
    match text.get(..digits) {
        Some([]) => text.starts_with(b"::"),
        Some([b'0'] | b"00" | b"64") => true,
        Some(_) | None => (3..=V6_GROUP_DIGITS_MAX).contains(&digits),
    }
}

/// How many hexadecimal digits `text` begins with; one more than a group may have stands for all above.
fn digits_at(text: &[u8]) -> usize {
    let digits =
        text.iter().take(V6_GROUP_DIGITS_MAX + 1).take_while(|byte| byte.is_ascii_hexdigit()).count();
    looked_at(digits + 1);
    digits
}

/// What has the form of an IPv6 address.
struct Form {
    len: usize,
    /// Whether it ends in an IPv4 address.
    is_dotted: bool,
}

impl Form {
    /// The longest that `text` begins with.
    fn of(text: &[u8]) -> Option<Self> {
        let mut is_shortened = text.starts_with(b"::");
        let mut form = Self { len: if is_shortened { 2 } else { 0 }, is_dotted: false };
        let mut groups = 0;
        // Where the next group begins.
        let mut next = form.len;
        loop {
            // `::` stands for one group at least.
            let room = V6_GROUPS - usize::from(is_shortened) - groups;
            let rest = text.get(next..).unwrap_or_default();
            if room >= 2 && is_dotted_end(rest) {
                return (is_shortened || groups + 2 == V6_GROUPS)
                    .then_some(Self { len: text.len(), is_dotted: true });
            }
            let digits = digits_at(rest);
            if room == 0 || !(1..=V6_GROUP_DIGITS_MAX).contains(&digits) {
                break;
            }
            groups += 1;
            form.len = next + digits;
            match text.get(form.len..) {
                Some([b':', b':', ..]) if !is_shortened && groups < V6_GROUPS => {
                    is_shortened = true;
                    form.len += 2;
                    next = form.len;
                }
                Some([b':', ..]) => next = form.len + 1,
                Some(_) | None => break,
            }
        }
        (is_shortened || groups == V6_GROUPS).then_some(form)
    }
}

/// Whether all of `text` is an IPv4 address.
fn is_dotted_end(text: &[u8]) -> bool {
    let may_be = text.len() <= V4_BYTES_MAX && text.contains(&b'.');
    looked_at(text.len().min(V4_BYTES_MAX));
    may_be && std::str::from_utf8(text).is_ok_and(|text| text.parse::<Ipv4Addr>().is_ok())
}

/// The address without what tells its holder apart.
fn cut_v6(address: Ipv6Addr) -> Ipv6Addr {
    if let Some(v4) = address.to_ipv4_mapped() {
        let [a, b, c, _] = v4.octets();
        return Ipv4Addr::new(a, b, c, 0).to_ipv6_mapped();
    }
    let is_6to4 = address.segments().first() == Some(&0x2002);
    // 6to4 holds an IPv4 address behind its first 16 bits, so its last octet goes, too.
    let bits = if is_6to4 { V6_BITS - 8 } else { V6_BITS };
    Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (128 - bits)))
}

/// Whether `text` begins with the bytes of a certificate's fingerprint. The first may have letters in front: Chrome's ids of
/// certificates are `CF` and the fingerprint. Looks at as many groups as the shortest has, at most.
fn is_fingerprint(text: &[u8]) -> bool {
    let mut groups = text.split(|byte| *byte == b':').skip(1);
    (1..FINGERPRINT_GROUPS_MIN).all(|_| {
        groups.next().is_some_and(|group| {
            looked_at(group.len());
            group.len() == 2
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quads_of_somebody_are_known() {
        for (text, expected) in [
            ("203.0.113.77", true),
            ("1.2.3.4", true),
            ("255.255.255.255", true),
            ("010.001.002.003", true),
            ("10.0.0.0", false),
            ("127.0.0.1", false),
            ("0.0.0.0", false),
            ("0.1.2.3", false),
            ("256.1.1.1", false),
            ("1.2.3.256", false),
            ("1.2.3.0004", false),
            ("1.2.3", false),
            ("1.2.3.4.5", false),
            ("1..2.3", false),
            ("", false),
        ] {
            assert_eq!(is_v4_of_somebody(text.as_bytes()), expected, "{text}");
        }
    }

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        let cut = first_v6(text.as_bytes(), 0)
            .map(|(range, address)| format!("{}{address}{}", &text[..range.start], &text[range.end..]));
        assert_eq!(cut.as_deref(), expected, "{text}");
    }

    #[test]
    fn the_first_48_bits_of_ipv6_stay() {
        check("2001:db8:1:2:3:4:5:6", Some("2001:db8:1::"));
        check("2001:DB8:1:2::5", Some("2001:db8:1::"));
        check("2600:1f14:a95:d502:f257:af9d:4fff:7a78", Some("2600:1f14:a95::"));
        check("fe80::1", Some("fe80::"));
        check("fd00:1:2:3::", Some("fd00:1:2::"));
        check("64:ff9b::203.0.113.7", Some("64:ff9b::"));
        check("2002:cb00:714d::1", Some("2002:cb00:7100::"));
        check("64:ff9b::cb00:714d", Some("64:ff9b::"));
        check("::ffff:cb00:714d", Some("::ffff:203.0.113.0"));
        check("0:0:0:0:0:ffff:cb00:714d", Some("::ffff:203.0.113.0"));
        check("::cb00:714d", Some("::"));
        check("::ffff:0:cb00:714d", Some("::"));
        // Cut already.
        check("2001:db8:1::", None);
        check("2001:0db8:0001:0::0", None);
        check("2002:cb00:7100::", None);
        check("::ffff:cb00:7100", None);
    }

    #[test]
    fn a_port_without_brackets_is_no_part_of_the_address() {
        check("2001:db8:0:0:0:0:0:1:443", Some("2001:db8:::443"));
        check("2001:db8::1:10000", Some("2001:db8:::10000"));
        check("2001:db8:1:2:3:4:5:::10000", Some("2001:db8:1:::10000"));
        check("10000:2001:db8::1", Some("10000:2001:db8::"));
        // Nobody can tell: the last group of the address.
        check("2001:db8::1:443", Some("2001:db8::"));
    }

    #[test]
    fn what_only_has_colons_stays() {
        for text in [
            "::",
            "::1",
            "12:34:56",
            "12:34:56.789",
            "12::34",
            "aa:bb:cc:dd:ee:ff:00:11",
            "00:1a:2b:3c:4d:5e",
            ":1",
            "1:2",
            "",
            ":::",
            "::ffff:203.0.113.7",
            "::ffff:127.0.0.1",
            "::ffff:7f00:1",
            "::7f00:1",
            "12:34:5678::",
            "aa:bb:cc:dd:ee:ff:0011:2233",
            "2001:db8",
            "12345::1",
        ] {
            check(text, None);
        }
        for bytes in [16, 20, 28, 32, 64] {
            let fingerprint = vec!["A7"; bytes].join(":");
            check(&fingerprint, None);
            check(&format!("CF{fingerprint}"), None);
        }
    }

    proptest! {
        /// A form is an address for the standard library, and there is no longer one at that place.
        #[test]
        fn forms_are_the_longest_addresses(
            pieces in prop::collection::vec(
                prop_oneof![Just(":"), Just("::"), Just("1"), Just("ab"), Just("2001"), Just("12345"), Just("1.2.3.4"), Just(".")], 0..20,
            ),
        ) {
            let text = pieces.concat();
            let is_address = |len: usize| text[..len].parse::<Ipv6Addr>().is_ok();
            // An address ends before a colon, behind two, or before a dot that is none of its own.
            let ends = (0..=text.len()).filter(|end| {
                let (before, after) = text.split_at(*end);
                before.ends_with("::") || after.is_empty() || after.starts_with([':', '.'])
            });
            let is_cut_off = |len: usize| text[..len].contains('.') && len < text.len();
            let longest = ends.filter(|end| is_address(*end) && !is_cut_off(*end)).max();
            prop_assert_eq!(Form::of(text.as_bytes()).map(|form| form.len), longest, "{}", text);
        }
    }
}
