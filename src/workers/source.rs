//! One pass over a dump: the bytes that the extraction reads are, in the same buffer, those that are archived.
//!
//! Owns the position in the file and remembers what went wrong, with reading or with the copy, for the extraction
//! only sees that it did. Never holds more than its buffer, and the cutter's where addresses are cut on the way to the
//! copy; the extraction reads the dump as it came, so that nothing that is derived depends on that setting.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};

use crate::archive::gzip::{Content, Gzip};
use crate::privacy::Cutter;

/// Bytes that are read in one go.
pub(super) const BUFFER_BYTES: usize = 256 * 1024;

/// What went wrong underneath the extraction.
#[derive(Debug)]
pub(super) enum SourceError {
    /// The dump cannot be read.
    Read(io::Error),
    /// The copy cannot be written.
    Copy(io::Error),
}

/// A dump that is read and, if wanted, copied.
pub(super) struct Source<'a> {
    file: &'a File,
    buffer: &'a mut [u8],
    start: usize,
    end: usize,
    copy: Option<DumpCopy<'a>>,
    error: Option<SourceError>,
    size_bytes: u64,
    /// Whether the dump has ended.
    is_at_end: bool,
}

/// Where the copy goes.
pub(super) struct DumpCopy<'a> {
    /// Through this.
    pub(super) gzip: &'a mut Gzip,
    /// Into this.
    pub(super) file: &'a mut dyn Write,
    /// Without the addresses, if this is there.
    pub(super) cutter: Option<&'a mut Cutter>,
}

impl DumpCopy<'_> {
    fn begin(&mut self) {
        self.gzip.begin();
        if let Some(cutter) = &mut self.cutter {
            cutter.begin();
        }
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(), SourceError> {
        let Self { gzip, file, cutter } = self;
        let fed = match cutter {
            Some(cutter) => cutter.feed(bytes, |piece| gzip.feed(piece, file)),
            None => gzip.feed(bytes, file),
        };
        fed.map_err(SourceError::Copy)
    }

    fn end(self) -> Result<Content, SourceError> {
        let Self { gzip, file, cutter } = self;
        let rest = cutter.map_or(Ok(()), |cutter| cutter.end(|piece| gzip.feed(piece, file)));
        rest.and_then(|()| gzip.end(file)).map_err(SourceError::Copy)
    }
}

impl<'a> Source<'a> {
    /// A dump that is read through `buffer`.
    ///
    /// # Panics
    /// When `buffer` has no room: every dump would look empty.
    pub(super) fn new(file: &'a File, buffer: &'a mut [u8]) -> Self {
        assert!(!buffer.is_empty(), "a dump is read through a buffer with room");
        Self { file, buffer, start: 0, end: 0, copy: None, error: None, size_bytes: 0, is_at_end: false }
    }

    /// The first line with its line feed, or what of it fits the buffer. Only before anything was consumed.
    ///
    /// # Errors
    /// When the dump cannot be read.
    pub(super) fn first_line(&mut self) -> Result<&[u8], SourceError> {
        if self.fill_buf().is_err() {
            return Err(self.take_error());
        }
        let filled = self.filled();
        let len = filled.iter().position(|byte| *byte == b'\n').map_or(filled.len(), |at| at + 1);
        Ok(filled.get(..len).unwrap_or(filled))
    }

    /// Copies everything from now on, and what was read before and not consumed.
    ///
    /// # Errors
    /// When the copy cannot be written.
    pub(super) fn copy_to(&mut self, mut copy: DumpCopy<'a>) -> Result<(), SourceError> {
        copy.begin();
        copy.feed(self.filled())?;
        self.copy = Some(copy);
        Ok(())
    }

    /// Reads what the extraction left, ends the copy, and says what is in it (if there is one) and how much was read.
    ///
    /// # Errors
    /// When the dump cannot be read or the copy not be written, now or before.
    pub(super) fn finish(mut self) -> Result<(Option<Content>, u64), SourceError> {
        while self.error.is_none() {
            match self.fill_buf() {
                Ok([]) => break,
                Ok(bytes) => {
                    let len = bytes.len();
                    self.consume(len);
                }
                Err(_) => return Err(self.take_error()),
            }
        }
        if let Some(error) = self.error {
            return Err(error);
        }
        Ok((self.copy.map(DumpCopy::end).transpose()?, self.size_bytes))
    }

    fn filled(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    fn take_error(&mut self) -> SourceError {
        self.error.take().unwrap_or_else(|| SourceError::Read(io::ErrorKind::Other.into()))
    }

    /// Fills the empty buffer, whole unless the dump ends.
    fn refill(&mut self) -> Result<(), SourceError> {
        (self.start, self.end) = (0, 0);
        while let Some(free @ [_, ..]) = self.buffer.get_mut(self.end..).filter(|_| !self.is_at_end) {
            match self.file.read(free) {
                Ok(0) => self.is_at_end = true,
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(SourceError::Read(error)),
            }
        }
        self.size_bytes += self.end as u64;
        let filled = self.buffer.get(..self.end).unwrap_or_default();
        match &mut self.copy {
            Some(copy) => copy.feed(filled),
            None => Ok(()),
        }
    }
}

impl BufRead for Source<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            if self.error.is_none()
                && let Err(error) = self.refill()
            {
                (self.start, self.end) = (0, 0);
                self.error = Some(error);
            }
            if let Some(SourceError::Read(error) | SourceError::Copy(error)) = &self.error {
                return Err(error.kind().into());
            }
        }
        Ok(self.filled())
    }

    fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }
}

impl Read for Source<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(bytes: usize) -> (tempfile::NamedTempFile, Vec<u8>) {
        let line = b"[\"entry\",null,{},1700000000000,1]\n";
        let content: Vec<u8> = line.iter().copied().cycle().take(bytes).collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&content).unwrap();
        (file, content)
    }

    fn unpack(path: &std::path::Path) -> Vec<u8> {
        let mut content = Vec::new();
        flate2::read::GzDecoder::new(File::open(path).unwrap()).read_to_end(&mut content).unwrap();
        content
    }

    #[test]
    fn the_copy_is_the_dump_however_little_is_read_of_it() {
        let mut gzip = Gzip::new(1);
        for bytes in [0, 1, 999, 1000, 1001, 5000] {
            for read_bytes in [0, 1, 500, 1000, 2500, 5000] {
                let (file, content) = dump(bytes);
                let mut packed = tempfile::NamedTempFile::new().unwrap();
                let opened = file.reopen().unwrap();
                let mut buffer = vec![0; 1000];
                let mut source = Source::new(&opened, &mut buffer);
                let first = source.first_line().unwrap().len();
                assert_eq!(first, content.iter().position(|byte| *byte == b'\n').map_or(bytes, |at| at + 1));
                source
                    .copy_to(DumpCopy { gzip: &mut gzip, file: packed.as_file_mut(), cutter: None })
                    .unwrap();
                let mut read = Vec::new();
                (&mut source).take(read_bytes).read_to_end(&mut read).unwrap();
                assert_eq!(read, content[..bytes.min(usize::try_from(read_bytes).unwrap())]);
                let (told, size_bytes) = source.finish().unwrap();
                assert_eq!(told.unwrap().size as usize, bytes);
                assert_eq!(size_bytes, bytes as u64);
                assert_eq!(unpack(packed.path()), content, "{bytes}, {read_bytes} read");
            }
        }
    }

    #[test]
    fn addresses_are_cut_from_the_copy_and_not_from_what_is_read() {
        let content: String = (1..200).map(|last| format!("[\"entry\",\"203.0.113.{last}\"]\n")).collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        let opened = file.reopen().unwrap();
        let (mut gzip, mut cutter, mut packed) =
            (Gzip::new(1), Cutter::default(), tempfile::NamedTempFile::new().unwrap());
        // What was given up before leaves nothing.
        cutter.feed(b"left", |_| Ok::<(), io::Error>(())).unwrap();
        // Lines are divided by the ends of this buffer.
        let mut buffer = [0; 100];
        let mut source = Source::new(&opened, &mut buffer);
        let first = source.first_line().unwrap().to_owned();
        assert_eq!(first, content.lines().next().map(|line| format!("{line}\n")).unwrap().as_bytes());
        let copy = DumpCopy { gzip: &mut gzip, file: packed.as_file_mut(), cutter: Some(&mut cutter) };
        source.copy_to(copy).unwrap();
        let mut read = String::new();
        source.read_to_string(&mut read).unwrap();
        assert_eq!(read, content);
        let (told, size_bytes) = source.finish().unwrap();
        let cut = "[\"entry\",\"203.0.113.0\"]\n".repeat(199);
        assert_eq!(unpack(packed.path()), cut.as_bytes());
        assert_eq!((told.unwrap().size as usize, size_bytes), (cut.len(), content.len() as u64));
    }

    #[test]
    fn an_error_is_remembered_with_its_side() {
        let (file, _) = dump(3_000_000);
        let (writable, unwritable) = (file.reopen().unwrap(), File::open(file.path()).unwrap());
        let mut buffer = vec![0; 1000];
        let mut gzip = Gzip::new(0);
        let mut source = Source::new(&writable, &mut buffer);
        let mut target = unwritable;
        source.copy_to(DumpCopy { gzip: &mut gzip, file: &mut target, cutter: None }).unwrap();
        // Level 0 does not compress, so the output buffer is full long before the dump ends.
        io::copy(&mut source, &mut io::sink()).unwrap_err();
        assert!(matches!(source.finish(), Err(SourceError::Copy(_))));

        let folder = File::open(std::env::temp_dir()).unwrap();
        let mut source = Source::new(&folder, &mut buffer);
        assert!(matches!(source.first_line(), Err(SourceError::Read(_))));
    }
}
