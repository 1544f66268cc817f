//! Text looked at 64 bytes at a time: one bit per byte that is of a kind. Pure.
//!
//! Names no instruction set: the compiler makes vectors of the comparison, and a multiplication gathers the bits. What
//! is rare in a text is then found by its bits, without looking at what is between.

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 64;

/// So many bytes of a text; the last block of a text is filled up.
pub type Block = [u8; BLOCK_BYTES];

/// Bit n tells whether byte n is of the kind `is`.
#[must_use]
#[inline]
pub fn bits(block: &Block, is: impl Fn(u8) -> bool) -> u64 {
    let mut flags = [0_u8; BLOCK_BYTES];
    for (n, (flag, byte)) in flags.iter_mut().zip(block).enumerate() {
        *flag = if is(*byte) { 1 << (n % 8) } else { 0 };
    }
    // The eight flags of a word have different bits, so their sum, in the upper byte of the product, holds them all.
    let (words, _) = flags.as_chunks::<8>();
    words.iter().rev().fold(0, |bits, word| {
        (bits << 8) | (u64::from_le_bytes(*word).wrapping_mul(0x0101_0101_0101_0101) >> 56)
    })
}

/// Which bytes stand inside of JSON strings, the opening quote included and the closing one not; block by block.
#[derive(Debug, Default)]
pub struct Strings {
    /// Whether the last byte before the block is a backslash that escapes its first byte.
    is_escaped: bool,
    /// All ones when the block begins inside a string.
    inside: u64,
}

impl Strings {
    /// The bits of the next block.
    #[inline]
    pub fn next(&mut self, block: &Block) -> u64 {
        let escaped = self.escaped(bits(block, |byte| byte == b'\\'));
        let quotes = bits(block, |byte| byte == b'"') & !escaped;
        // Bit n becomes the parity of the quotes up to n.
        let mut inside = quotes;
        for shift in [1, 2, 4, 8, 16, 32] {
            inside ^= inside << shift;
        }
        inside ^= self.inside;
        self.inside = if inside >> 63 == 1 { u64::MAX } else { 0 };
        inside
    }

    /// Bytes behind a backslash that is not itself escaped.
    fn escaped(&mut self, mut backslashes: u64) -> u64 {
        let mut escaped = u64::from(std::mem::take(&mut self.is_escaped));
        backslashes &= !escaped;
        while backslashes != 0 {
            let at = backslashes.trailing_zeros();
            let next = 2 << at;
            self.is_escaped = next == 0;
            escaped |= next;
            backslashes &= !((1 << at) | next);
        }
        escaped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The bits are those of a look at each byte.
    fn one_by_one(block: &Block, is: impl Fn(u8) -> bool) -> u64 {
        (0..BLOCK_BYTES).fold(0, |bits, n| bits | (u64::from(is(block[n])) << n))
    }

    proptest! {
        #[test]
        fn each_byte_has_its_bit(bytes in proptest::collection::vec(any::<u8>(), BLOCK_BYTES)) {
            let block: Block = bytes.try_into().unwrap();
            prop_assert_eq!(bits(&block, |byte| byte < 0x20), one_by_one(&block, |byte| byte < 0x20));
            prop_assert_eq!(bits(&block, |byte| byte == b'"'), one_by_one(&block, |byte| byte == b'"'));
            prop_assert_eq!(bits(&block, |_| true), u64::MAX);
        }

        #[test]
        fn strings_are_told_from_the_rest(text in "[\"\\\\a]{1,200}") {
            let (mut strings, mut inside, mut escaped) = (Strings::default(), false, false);
            for chunk in text.as_bytes().chunks(BLOCK_BYTES) {
                let mut block = [b' '; BLOCK_BYTES];
                block[..chunk.len()].copy_from_slice(chunk);
                let bits = strings.next(&block);
                for (n, byte) in chunk.iter().enumerate() {
                    if std::mem::take(&mut escaped) {
                    } else if *byte == b'\\' {
                        escaped = true;
                    } else if *byte == b'"' {
                        inside = !inside;
                    }
                    prop_assert_eq!((bits >> n) & 1 == 1, inside, "byte {} of {:?}", n, text);
                }
            }
        }
    }
}
