//! What an address is when it is cut, and what looks like one.
//!
//! Pure, on ASCII without escapes. Rules: ours, see [`super`]; RFC 4291 2.2 for the forms of IPv6.

use std::net::Ipv6Addr;
use std::ops::Range;

/// Bits of an IPv6 address that stay: what a site has. The last 80 are the subscriber's.
const V6_BITS: u32 = 48;
/// Groups of two digits from which on they are the fingerprint of a certificate: the shortest that is used (MD5) has 16.
const FINGERPRINT_GROUPS_MIN: usize = 16;

/// Whether `text` is an IPv4 address of somebody, and more than a network.
///
/// Its last octet is what is cut. Leading zeros are let through: better one number too many than one too few.
pub(super) fn is_v4(text: &[u8]) -> bool {
    let mut octets = [0_u16; 4];
    let mut parts = text.split(|byte| *byte == b'.');
    for octet in &mut octets {
        match parts.next().and_then(decimal) {
            Some(number) if number <= 255 => *octet = number,
            Some(_) | None => return false,
        }
    }
    let [first, _, _, last] = octets;
    parts.next().is_none() && !matches!(first, 0 | 127) && last != 0
}

/// One to three digits.
fn decimal(digits: &[u8]) -> Option<u16> {
    if !(1..=3).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0')))
}

/// The first IPv6 address in `text` of which there is something to be cut. `text` consists of hexadecimal digits and colons,
/// perhaps with a dotted number behind the last colon; it should be one address, and may be one with a port or with more.
/// Gives where it stands, and what it is when it is cut.
pub(super) fn v6(text: &[u8]) -> Option<(Range<usize>, Ipv6Addr)> {
    let hexadecimal = text.split(|byte| *byte == b'.').next().unwrap_or_default();
    if hexadecimal.len() < text.len()
        && let Some(address) = parse(text)
    {
        // The dotted part of an IPv4 address with a prefix that says no more than that is cut where it stands.
        let prefix = hexadecimal.iter().rposition(|byte| *byte == b':').and_then(|at| hexadecimal.get(..at));
        let is_cut_there = !prefix.is_some_and(is_wide) || address.to_ipv4_mapped().is_some();
        return if is_cut_there { None } else { cut_of(address, 0..text.len()) };
    }
    if is_fingerprint(hexadecimal) || !is_wide(hexadecimal) {
        return None;
    }
    let starts = std::iter::once(0).chain(colons(hexadecimal).map(|colon| colon + 1));
    for start in starts {
        let Some(rest) = hexadecimal.get(start..) else { break };
        // An address ends before a colon or behind two. It has at most eight colons, and then `::` at one of its ends.
        let behind_two = |colon: &usize| rest.get(colon - 1..*colon) == Some(b":");
        let ends_at =
            |colon: usize| [Some(colon), Some(colon + 1).filter(|_| colon > 0 && behind_two(&colon))];
        let mut ends = [0; 10];
        let found = colons(rest).flat_map(ends_at).flatten().chain([rest.len()]);
        let found = found.zip(&mut ends).map(|(end, place)| *place = end).count();
        for end in ends.iter().take(found).rev() {
            let part = rest.get(..*end).unwrap_or_default();
            if is_wide(part)
                && let Some(address) = parse(part)
            {
                return cut_of(address, start..start + end);
            }
        }
    }
    None
}

fn cut_of(address: Ipv6Addr, range: Range<usize>) -> Option<(Range<usize>, Ipv6Addr)> {
    let cut = cut_v6(address);
    (cut != address).then_some((range, cut))
}

fn colons(text: &[u8]) -> impl Iterator<Item = usize> {
    text.iter().enumerate().filter(|(_, byte)| **byte == b':').map(|(at, _)| at)
}

fn parse(text: &[u8]) -> Option<Ipv6Addr> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The address without what tells its holder apart.
fn cut_v6(address: Ipv6Addr) -> Ipv6Addr {
    if let Some(v4) = address.to_ipv4_mapped() {
        let [a, b, c, _] = v4.octets();
        return std::net::Ipv4Addr::new(a, b, c, 0).to_ipv6_mapped();
    }
    let is_6to4 = address.segments().first() == Some(&0x2002);
    // 6to4 holds an IPv4 address behind its first 16 bits, so its last octet goes, too.
    let bits = if is_6to4 { V6_BITS - 8 } else { V6_BITS };
    Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (128 - bits)))
}

/// Whether any group has more than two digits. Every address of somebody has one: the first; without it `::1`, a time like
/// `12::34` or eight bytes in hexadecimal are meant.
fn is_wide(text: &[u8]) -> bool {
    text.split(|byte| *byte == b':').any(|group| group.len() > 2)
}

/// Whether these are the bytes of a certificate's fingerprint. The first may have letters in front: Chrome's ids of certificates
/// are `CF` and the fingerprint.
fn is_fingerprint(text: &[u8]) -> bool {
    let groups = text.split(|byte| *byte == b':');
    groups.clone().count() >= FINGERPRINT_GROUPS_MIN && groups.skip(1).all(|group| group.len() == 2)
}

#[cfg(test)]
mod tests {
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
            assert_eq!(is_v4(text.as_bytes()), expected, "{text}");
        }
    }

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        let cut = v6(text.as_bytes())
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
        check("::ffff:cb00:714d", Some("::ffff:203.0.113.0"));
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
}
