//! A dump's way into its `.gz`: one member, written in large pieces, its state used again for the next dump.
//!
//! Owns the compressor of one worker and its output buffer. Never opens or names a file.
//! Rules: RFC 1952; the trailer (CRC32 and length) is what tells two archived dumps apart (our contract, section 3).

use std::io::{self, BufRead, Write};

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// Deflate, no name, no time (equal dumps give equal files), unknown system. RFC 1952 2.3.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// CRC32 and length.
pub const TRAILER_BYTES: usize = 8;
/// The shortest member: header, an empty block, trailer.
pub const MEMBER_BYTES_MIN: u64 = 10 + 2 + TRAILER_BYTES as u64;
/// Output that is gathered before it is written: a smaller dump is one write.
const OUT_BYTES: usize = 128 * 1024;
/// Free output space below which it is written: deflate then never starves.
const OUT_BYTES_SPARE: usize = 4 * 1024;

/// What a `.gz` says of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// CRC32 of the content.
    pub crc: u32,
    /// Its length modulo 2^32.
    pub size: u32,
}

impl Content {
    /// Reads `input` to its end.
    ///
    /// # Errors
    /// Whatever reading says.
    pub fn of(input: &mut impl BufRead) -> io::Result<Self> {
        let mut crc = Crc::new();
        loop {
            let bytes = input.fill_buf()?;
            if bytes.is_empty() {
                return Ok(Self { crc: crc.sum(), size: crc.amount() });
            }
            crc.update(bytes);
            let len = bytes.len();
            input.consume(len);
        }
    }

    /// Reads the trailer of a member.
    #[must_use]
    pub fn of_trailer(trailer: [u8; TRAILER_BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h] = trailer;
        Self { crc: u32::from_le_bytes([a, b, c, d]), size: u32::from_le_bytes([e, f, g, h]) }
    }
}

/// A compressor for one dump after the other.
pub struct Gzip {
    compress: Compress,
    crc: Crc,
    out: Vec<u8>,
}

impl std::fmt::Debug for Gzip {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Gzip").field("size", &self.crc.amount()).finish_non_exhaustive()
    }
}

impl Gzip {
    /// A compressor of `level`, 0 to 9. Takes about 400 KiB.
    #[must_use]
    pub fn new(level: u32) -> Self {
        let compress = Compress::new(Compression::new(level.min(9)), false);
        Self { compress, crc: Crc::new(), out: Vec::with_capacity(OUT_BYTES) }
    }

    /// Begins a new member, whatever became of the one before.
    pub fn begin(&mut self) {
        self.compress.reset();
        self.crc.reset();
        self.out.clear();
        self.out.extend_from_slice(&HEADER);
    }

    /// Compresses `bytes` and writes to `file` what has gathered.
    ///
    /// # Errors
    /// Whatever writing says; the member is then useless.
    pub fn feed(&mut self, mut bytes: &[u8], file: &mut dyn Write) -> io::Result<()> {
        self.crc.update(bytes);
        while !bytes.is_empty() {
            self.make_room(file)?;
            let (taken, _) = self.step(bytes, FlushCompress::None)?;
            bytes = bytes.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// Ends the member, writes the rest, and says what is in it.
    ///
    /// # Errors
    /// Whatever writing says; the member is then useless.
    pub fn end(&mut self, file: &mut dyn Write) -> io::Result<Content> {
        loop {
            self.make_room(file)?;
            if self.step(&[], FlushCompress::Finish)?.1 == Status::StreamEnd {
                break;
            }
        }
        let content = Content { crc: self.crc.sum(), size: self.crc.amount() };
        self.make_room(file)?;
        self.out.extend_from_slice(&content.crc.to_le_bytes());
        self.out.extend_from_slice(&content.size.to_le_bytes());
        file.write_all(&self.out)?;
        self.out.clear();
        Ok(content)
    }

    fn make_room(&mut self, file: &mut dyn Write) -> io::Result<()> {
        if self.out.capacity() - self.out.len() < OUT_BYTES_SPARE {
            file.write_all(&self.out)?;
            self.out.clear();
        }
        Ok(())
    }

    /// One call of the compressor: the bytes it took, and its status.
    fn step(&mut self, bytes: &[u8], flush: FlushCompress) -> io::Result<(usize, Status)> {
        let before = self.compress.total_in();
        let status = self.compress.compress_vec(bytes, &mut self.out, flush).map_err(io::Error::other)?;
        let taken = usize::try_from(self.compress.total_in() - before).unwrap_or(usize::MAX);
        Ok((taken, status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn unpack(packed: &[u8]) -> Vec<u8> {
        let mut content = Vec::new();
        flate2::read::GzDecoder::new(packed).read_to_end(&mut content).unwrap();
        content
    }

    /// Bytes that deflate can hardly shorten.
    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 1u64;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        };
        std::iter::repeat_with(next).take(bytes).collect()
    }

    #[test]
    fn every_size_and_level_comes_back_byte_for_byte() {
        for level in 0..=9 {
            let mut gzip = Gzip::new(level);
            for size in [0, 1, 1000, OUT_BYTES - 5, 300_000] {
                for content in [noise(size), vec![b'a'; size]] {
                    let mut packed = Vec::new();
                    gzip.begin();
                    for piece in content.chunks(100_001) {
                        gzip.feed(piece, &mut packed).unwrap();
                    }
                    let told = gzip.end(&mut packed).unwrap();
                    assert!(unpack(&packed) == content, "level {level}, {size} bytes");
                    assert!(packed.len() as u64 >= MEMBER_BYTES_MIN);
                    let trailer = packed[packed.len() - TRAILER_BYTES..].try_into().unwrap();
                    assert_eq!(Content::of_trailer(trailer), told);
                    assert_eq!(told.size as usize, size);
                    assert_eq!(Content::of(&mut &content[..]).unwrap(), told);
                }
            }
        }
    }

    #[test]
    fn a_member_that_was_given_up_leaves_no_trace_in_the_next() {
        let mut gzip = Gzip::new(4);
        gzip.begin();
        gzip.feed(&noise(50_000), &mut Vec::new()).unwrap();
        let (mut packed, mut fresh) = (Vec::new(), Vec::new());
        for (gzip, packed) in [(&mut gzip, &mut packed), (&mut Gzip::new(4), &mut fresh)] {
            gzip.begin();
            gzip.feed(b"content", packed).unwrap();
            gzip.end(packed).unwrap();
        }
        assert_eq!(packed, fresh);
        assert_eq!(unpack(&packed), b"content");
    }

    #[test]
    fn a_failed_write_is_told() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut gzip = Gzip::new(1);
        gzip.begin();
        let error = gzip.feed(&noise(2 * OUT_BYTES), &mut Full).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        gzip.begin();
        gzip.end(&mut Full).unwrap_err();
    }
}
