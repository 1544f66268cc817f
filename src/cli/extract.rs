//! `rtcstats-server extract`: dumps -> documents on standard output.
//!
//! Owns the arguments of this subcommand and the reporting of files that fail; the extraction is in
//! [`crate::extract`]. Rules: our contract 1.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use flate2::bufread::MultiGzDecoder;
use lexopt::{Arg, Parser};

use crate::extract::{self, Document, ExtractError, ExtractLimits, Options};

/// Bytes that are read, and of gzip unpacked, at once.
const BUFFER_BYTES: usize = 128 << 10;
/// What a gzip file begins with.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Request {
    strict: bool,
    pretty: bool,
    client_id: Option<String>,
    files: Vec<PathBuf>,
}

/// Why the arguments make no request.
#[derive(Debug, thiserror::Error)]
enum UsageError {
    /// An unknown option, a missing value, a value that is no UTF-8.
    #[error(transparent)]
    Arguments(#[from] lexopt::Error),
    /// No dump was named.
    #[error("no file given")]
    NoFile,
    /// One id cannot be that of several sessions.
    #[error("--client-id is for a single file, and {files} were given")]
    ClientIdForMany {
        /// How many.
        files: usize,
    },
}

/// Why a file gave no document.
#[derive(Debug, thiserror::Error)]
enum FileError {
    /// It could not be opened.
    #[error("cannot be opened")]
    Open(#[source] io::Error),
    /// It could not be read, or has an error that strict mode does not forgive.
    #[error(transparent)]
    Extract(#[from] ExtractError),
    /// The document could not be written.
    #[error("result cannot be written")]
    Write(#[source] io::Error),
}

/// Runs the subcommand on the arguments behind its name. Documents go to `out`, one line (or, with `--pretty`, one
/// block) each; a file that fails is one line on `log`, the others go on.
///
/// `now_ms` is the time, in ms since 1970, for what the reference fills in with it.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    limits: ExtractLimits,
    now_ms: f64,
    out: &mut impl Write,
    log: &mut impl Write,
) -> ExitCode {
    let request = match Request::of(arguments) {
        Ok(request) => request,
        Err(error) => {
            report(log, &format!("extract: {error}"));
            return ExitCode::from(2);
        }
    };
    let mut exit = ExitCode::SUCCESS;
    for path in &request.files {
        let options = Options {
            strict: request.strict,
            client_id: request.client_id.clone().unwrap_or_else(|| client_id_of(path)),
            dump_path: path.to_string_lossy().into_owned(),
            now_ms,
            limits,
        };
        let written = document_of(path, &options).and_then(|document| write(&document, request.pretty, out));
        if let Err(error) = written {
            report(log, &line_about(path, &error));
            exit = ExitCode::FAILURE;
        }
    }
    exit
}

impl Request {
    fn of(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, UsageError> {
        let mut request = Self::default();
        let mut parser = Parser::from_args(arguments);
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("strict") => request.strict = true,
                Arg::Long("pretty") => request.pretty = true,
                Arg::Long("client-id") => {
                    request.client_id = Some(parser.value()?.into_string().map_err(lexopt::Error::from)?)
                }
                Arg::Value(file) => request.files.push(file.into()),
                Arg::Short(_) | Arg::Long(_) => return Err(argument.unexpected().into()),
            }
        }
        match (request.files.len(), &request.client_id) {
            (0, _) => Err(UsageError::NoFile),
            (files @ 2.., Some(_)) => Err(UsageError::ClientIdForMany { files }),
            _ => Ok(request),
        }
    }
}

fn document_of(path: &Path, options: &Options) -> Result<Document, FileError> {
    if path == Path::new("-") {
        return Ok(unpack_and_extract(io::stdin().lock(), options)?);
    }
    let file = File::open(path).map_err(FileError::Open)?;
    Ok(unpack_and_extract(file, options)?)
}

/// Reads gzip or plain, whichever the first bytes say it is.
fn unpack_and_extract(input: impl Read, options: &Options) -> Result<Document, ExtractError> {
    let mut input = BufReader::with_capacity(BUFFER_BYTES, input);
    if input.fill_buf()?.starts_with(&GZIP_MAGIC) {
        let unpacked = BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(input));
        return extract::extract(unpacked, options);
    }
    extract::extract(input, options)
}

fn write(document: &Document, pretty: bool, out: &mut impl Write) -> Result<(), FileError> {
    let mut text = if pretty { serde_json::to_vec_pretty(document) } else { serde_json::to_vec(document) }
        .map_err(|error| FileError::Write(error.into()))?;
    text.push(b'\n');
    out.write_all(&text).and_then(|()| out.flush()).map_err(FileError::Write)
}

/// The file name without `.gz`.
fn client_id_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    name.strip_suffix(".gz").unwrap_or(&name).to_owned()
}

/// `file:line: reason`, the cause behind it where there is one.
fn line_about(path: &Path, error: &FileError) -> String {
    let path = path.display();
    if let FileError::Extract(ExtractError::Line { line, reason }) = error {
        return format!("{path}:{line}: {reason}");
    }
    let mut text = format!("{path}: {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Writes a line; where that fails there is nobody left to tell.
fn report(log: &mut impl Write, line: &str) {
    let _ = writeln!(log, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(arguments: &[&str]) -> Result<Request, String> {
        Request::of(arguments.iter().map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn arguments_make_a_request() {
        let all = request(&["--strict", "a", "--pretty", "--client-id=x"]).unwrap();
        assert_eq!(
            all,
            Request { strict: true, pretty: true, client_id: Some("x".into()), files: vec!["a".into()] }
        );
        assert_eq!(request(&["-", "b.gz"]).unwrap().files.len(), 2);
        for (arguments, error) in [
            (&["--strict"][..], "no file given"),
            (&["--client-id", "x", "a", "b"], "--client-id is for a single file, and 2 were given"),
            (&["--fast", "a"], "invalid option '--fast'"),
            (&["a", "--client-id"], "missing argument for option '--client-id'"),
        ] {
            assert_eq!(request(arguments).unwrap_err(), error);
        }
    }

    #[test]
    fn the_id_is_the_file_name_without_gz() {
        for (path, id) in [("a/b/x.gz", "x"), ("x_1", "x_1"), ("-", "-"), ("a.json.gz", "a.json")] {
            assert_eq!(client_id_of(Path::new(path)), id);
        }
    }

    #[test]
    fn a_failing_file_is_one_line_and_the_others_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let good = folder.path().join("good.gz");
        let mut packed =
            flate2::write::GzEncoder::new(File::create(&good).unwrap(), flate2::Compression::fast());
        packed.write_all(b"[\"connectionInfo\",null,{\"clientProtocol\":\"3.1_STANDARD\"}]\n").unwrap();
        packed.finish().unwrap();
        let bad = folder.path().join("bad");
        std::fs::write(&bad, "[\"connectionInfo\",null,{}]\n{\n").unwrap();
        let missing = folder.path().join("missing");
        let (mut out, mut log) = (Vec::new(), Vec::new());
        let arguments = ["--strict".into(), bad.clone().into(), missing.clone().into(), good.into()];
        let limits = ExtractLimits::default();
        let exit = run(arguments, limits, 7.0, &mut out, &mut log);
        assert_eq!(format!("{exit:?}"), format!("{:?}", ExitCode::FAILURE));
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("\"clientId\":\"good\"") && out.ends_with("}\n"), "{out}");
        let log = String::from_utf8(log).unwrap();
        let lines: Vec<_> = log.lines().collect();
        assert_eq!(lines[0], format!("{}:2: not JSON: ends inside a value", bad.display()));
        assert!(lines[1].starts_with(&format!("{}: cannot be opened: ", missing.display())), "{log}");
        assert_eq!(lines.len(), 2);
    }
}
