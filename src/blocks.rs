//! Text looked at 64 bytes at a time: one bit per byte that is of a kind. Pure.
//!
//! What is rare in a text is found by its bits, without a look at what is between. Vectors are the business of `wide`,
//! which has them for each processor without anything unsafe here.

use wide::u8x64;

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 64;

/// So many bytes of a text; the last block of a text is filled up.
pub type Block = [u8; BLOCK_BYTES];

/// A block in vector registers. Bit n of an answer tells of byte n.
#[derive(Debug, Clone, Copy)]
pub struct Bytes(u8x64);

impl Bytes {
    /// The bytes of `block`.
    #[must_use]
    #[inline]
    pub fn of(block: &Block) -> Self {
        Self(u8x64::new(*block))
    }

    /// Which of them are `byte`.
    #[must_use]
    #[inline]
    pub fn equal(self, byte: u8) -> u64 {
        self.0.simd_eq(u8x64::splat(byte)).to_bitmask()
    }

    /// Which of them are less than `byte`.
    #[must_use]
    #[inline]
    pub fn below(self, byte: u8) -> u64 {
        self.0.simd_lt(u8x64::splat(byte)).to_bitmask()
    }

    /// All of them with these bits set.
    #[must_use]
    #[inline]
    pub fn with(self, bits: u8) -> Self {
        Self(self.0 | u8x64::splat(bits))
    }
}

/// Which bytes a backslash escapes, block by block.
#[derive(Debug, Clone, Copy, Default)]
pub struct Escapes {
    /// 1 when the last byte before the block is a backslash that escapes its first byte, else 0.
    carried: u64,
}

impl Escapes {
    /// The escaped bytes of the next block, by its backslashes.
    ///
    /// Of a run of backslashes each second byte is escaped, and the byte behind it when the run is of odd length. So
    /// escaped bytes stand at odd places behind the start of their run: for runs that start at an even bit these are the
    /// odd bits, else the even ones. Adding its start to a run carries it to the bit behind it, which tells the runs
    /// that start at odd bits from the rest.
    #[must_use]
    #[inline]
    pub fn next(&mut self, backslashes: u64) -> u64 {
        const EVEN: u64 = 0x5555_5555_5555_5555;
        let free = backslashes & !self.carried;
        let behind = free << 1 | self.carried;
        let odd_starts = free & !EVEN & !behind;
        let (carried_over, leaves) = odd_starts.overflowing_add(free);
        self.carried = u64::from(leaves);
        (EVEN ^ (carried_over << 1)) & behind
    }

    /// Whether the byte behind the last block is escaped.
    #[must_use]
    pub fn is_open(self) -> bool {
        self.carried != 0
    }
}

/// Which bytes stand inside of JSON strings, the opening quote included and the closing one not; block by block.
#[derive(Debug, Default)]
pub struct Strings {
    escapes: Escapes,
    /// All ones when the block begins inside a string.
    inside: u64,
}

impl Strings {
    /// The bits of the next block.
    #[inline]
    pub fn next(&mut self, bytes: Bytes) -> u64 {
        let quotes = bytes.equal(b'"') & !self.escapes.next(bytes.equal(b'\\'));
        // Bit n becomes the parity of the quotes up to n.
        let mut inside = quotes;
        for shift in [1, 2, 4, 8, 16, 32] {
            inside ^= inside << shift;
        }
        inside ^= self.inside;
        self.inside = if inside >> 63 == 1 { u64::MAX } else { 0 };
        inside
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
            let all = Bytes::of(&block);
            prop_assert_eq!(all.below(0x20), one_by_one(&block, |byte| byte < 0x20));
            prop_assert_eq!(all.below(0xe0), one_by_one(&block, |byte| byte < 0xe0));
            prop_assert_eq!(all.equal(block[9]), one_by_one(&block, |byte| byte == block[9]));
            prop_assert_eq!(all.with(0x20).equal(b'{'), one_by_one(&block, |byte| byte | 0x20 == b'{'));
        }

        #[test]
        fn escaped_bytes_are_told_from_the_rest(text in "[\\\\a]{1,300}") {
            let (mut escapes, mut is_escaped) = (Escapes::default(), false);
            for chunk in text.as_bytes().chunks_exact(BLOCK_BYTES) {
                let backslashes = Bytes::of(chunk.try_into().unwrap()).equal(b'\\');
                let bits = escapes.next(backslashes);
                for (n, byte) in chunk.iter().enumerate() {
                    prop_assert_eq!((bits >> n) & 1 == 1, is_escaped, "byte {} of {:?}", n, text);
                    is_escaped = !is_escaped && *byte == b'\\';
                }
                prop_assert_eq!(escapes.is_open(), is_escaped);
            }
        }

        #[test]
        fn strings_are_told_from_the_rest(text in "[\"\\\\a]{1,200}") {
            let (mut strings, mut inside, mut escaped) = (Strings::default(), false, false);
            for chunk in text.as_bytes().chunks(BLOCK_BYTES) {
                let mut block = [b' '; BLOCK_BYTES];
                block[..chunk.len()].copy_from_slice(chunk);
                let bits = strings.next(Bytes::of(&block));
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
