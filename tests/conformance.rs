//! Every dump and user agent of the conformance data against the recorded results of the reference.
//!
//! The data are not part of this repository: a folder `shared` beside it, or the one that `RTCSTATS_SHARED` names.
//! Without it these tests say so and pass.

use std::fs::File;
use std::io::{BufReader, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rtcstats_server::extract::user_agent::{BrowserInfo, StatsFormat};
use rtcstats_server::extract::{self, ExtractError, ExtractLimits, Options};
use rtcstats_server::privacy;
use serde_json::Value;

/// The folder with the data, if it is there.
fn conformance() -> Option<PathBuf> {
    let shared = std::env::var_os("RTCSTATS_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let folder = shared.join("conformance");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("SKIPPED: no conformance data at {}; set RTCSTATS_SHARED", folder.display());
    None
}

#[expect(clippy::expect_used, clippy::panic, reason = "a broken fixture ends the test")]
fn json(path: &Path) -> Value {
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_reader(BufReader::new(file)).expect("fixtures are JSON")
}

#[expect(clippy::expect_used, reason = "a broken fixture ends the test")]
fn dump(folder: &Path, name: &str) -> Vec<u8> {
    let plain = folder.join("dumps").join(name);
    let mut bytes = Vec::new();
    if plain.is_file() {
        File::open(plain).and_then(|mut file| file.read_to_end(&mut bytes)).expect("a dump can be read");
    } else {
        let packed =
            File::open(folder.join("dumps").join(format!("{name}.gz"))).expect("each name has a dump");
        flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes).expect("a dump can be unpacked");
    }
    bytes
}

fn options(strict: bool, client_id: &str) -> Options {
    Options {
        strict,
        client_id: client_id.to_owned(),
        dump_path: "the/path".to_owned(),
        // Behind every time of the data, as the clock was when they were recorded.
        now_ms: 4_102_444_800_000.0,
        limits: ExtractLimits::default(),
    }
}

/// Names of all expected results, in order.
#[expect(clippy::expect_used, reason = "a broken fixture ends the test")]
fn names(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder.join("expected")).expect("the folder can be listed");
    let names =
        files.filter_map(|file| Some(file.ok()?.file_name().to_str()?.strip_suffix(".json")?.to_owned()));
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// The differences, by the rule of `compare.py`.
fn differences(expected: &Value, got: &Value, path: &str, volatile: &[&str], out: &mut Vec<String>) {
    if volatile.contains(&path) {
        if !got.is_number() {
            out.push(format!("{path}: no number"));
        }
        return;
    }
    match (expected, got) {
        (Value::Object(expected), Value::Object(got)) => {
            for key in expected.keys().chain(got.keys().filter(|key| !expected.contains_key(*key))) {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match (expected.get(key), got.get(key)) {
                    (Some(expected), Some(got)) => differences(expected, got, &path, volatile, out),
                    (expected, got) => out.push(format!("{path}: {expected:?} and {got:?}")),
                }
            }
        }
        (Value::Array(expected), Value::Array(got)) if expected.len() == got.len() => {
            for (at, (expected, got)) in expected.iter().zip(got).enumerate() {
                differences(expected, got, &format!("{path}.{at}"), volatile, out);
            }
        }
        (Value::Number(expected), Value::Number(got)) => {
            let (a, b) = (expected.as_f64().unwrap_or(f64::NAN), got.as_f64().unwrap_or(f64::NAN));
            let equal = a == b || (a - b).abs() <= f64::max(1e-12, 1e-9 * f64::max(a.abs(), b.abs()));
            if !equal {
                out.push(format!("{path}: {a} and {b}"));
            }
        }
        (Value::String(expected), Value::String(got))
            if expected.replace("{dumpPath}", "the/path") == *got => {}
        (expected, got) if expected == got => {}
        (expected, got) => out.push(format!("{path}: {expected} and {got}")),
    }
}

#[test]
fn every_dump_gives_the_document_of_the_reference() {
    // In both modes: without problems the tolerant result is the strict one.
    let Some(folder) = conformance() else { return };
    let (mut checked, mut failures) = (0, Vec::new());
    for name in names(&folder) {
        let expected = json(&folder.join("expected").join(format!("{name}.json")));
        let bytes = dump(&folder, &name);
        let client_id = expected["clientId"].as_str().unwrap_or_default();
        checked += 1;
        if expected.get("error").is_some() {
            match extract::extract(&*bytes, &options(true, client_id)) {
                Err(ExtractError::Line { .. }) => {}
                other => failures.push(format!("{name}: no error, but {other:?}")),
            }
            continue;
        }
        let volatile: Vec<&str> =
            expected["volatile"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for strict in [true, false] {
            let document = match extract::extract(&*bytes, &options(strict, client_id)) {
                Ok(document) => {
                    let mut document = serde_json::to_value(&document).unwrap();
                    // Gaps in the sequence numbers are no problems, and the reference knows none.
                    document.as_object_mut().unwrap().remove("missing");
                    document
                }
                Err(error) => {
                    failures.push(format!("{name}: {error}"));
                    continue;
                }
            };
            let mut found = Vec::new();
            differences(&expected["result"], &document, "", &volatile, &mut found);
            failures
                .extend(found.into_iter().map(|difference| format!("{name} strict={strict} {difference}")));
        }
    }
    assert!(checked > 0, "no dumps in {}", folder.display());
    assert!(failures.is_empty(), "{} of {checked}:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn keys_come_in_the_order_of_the_reference() {
    // Byte for byte, as far as the expected file's own number format allows.
    let Some(folder) = conformance() else { return };
    for name in names(&folder) {
        let path = folder.join("expected").join(format!("{name}.json"));
        if json(&path).get("error").is_some() {
            continue;
        }
        let expected = std::fs::read_to_string(&path).unwrap();
        let document = extract::extract(&*dump(&folder, &name), &options(true, &name)).unwrap();
        let got = serde_json::to_string(&document).unwrap();
        let expected = keys(expected.split_once("\"result\"").unwrap().1);
        let mut got = keys(&got);
        got.extend(expected.iter().skip(got.len()).cloned());
        assert_eq!(expected, got, "{name}");
    }
}

/// All object keys of a text of JSON, in order.
fn keys(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((_, behind)) = rest.split_once('"') {
        let mut end = 0;
        while !behind[end..].starts_with('"') {
            end += if behind[end..].starts_with('\\') {
                2
            } else {
                behind[end..].chars().next().map_or(1, char::len_utf8)
            };
        }
        let (string, behind) = (&behind[..end], &behind[end + 1..]);
        if behind.trim_start().starts_with(':') {
            out.push(string.to_owned());
        }
        rest = behind;
    }
    out
}

#[test]
fn rejected_dumps_give_a_document_with_problems() {
    let Some(folder) = conformance() else { return };
    let mut rejected = 0;
    for name in names(&folder) {
        if json(&folder.join("expected").join(format!("{name}.json"))).get("error").is_none() {
            continue;
        }
        rejected += 1;
        let bytes = dump(&folder, &name);
        let document = extract::extract(&*bytes, &options(false, &name)).unwrap();
        assert!(document.problems().total() > 0, "{name}");
        let text = serde_json::to_string(&document).unwrap();
        assert!(text.contains("\"problems\":{\"total\":"), "{name}: {text}");
        let strict = extract::extract(&*bytes, &options(true, &name)).unwrap_err();
        let ExtractError::Line { line, reason } = strict else { panic!("{name}: {strict}") };
        let first = &document.problems().first()[0];
        assert_eq!((first.line, &first.error), (line, &reason), "{name}");
    }
    assert_eq!(rejected, 38);
}

#[test]
fn every_user_agent_gives_what_the_reference_finds() {
    let Some(folder) = conformance() else { return };
    let table = json(&folder.join("user-agents.json"));
    let mut failures = Vec::new();
    for row in table.as_array().unwrap() {
        let agent = row["userAgent"].as_str().unwrap();
        let format = StatsFormat::of(agent).name();
        if row["statsFormat"] != format {
            failures.push(format!("{agent}\n    format {format}, not {}", row["statsFormat"]));
        }
        let info = serde_json::to_value(BrowserInfo::of(agent)).unwrap();
        if row["browserInfo"] != info {
            failures.push(format!("{agent}\n    {info}\nnot {}", row["browserInfo"]));
        }
    }
    assert_eq!(table.as_array().unwrap().len(), 203);
    assert!(failures.is_empty(), "{}:\n{}", failures.len(), failures.join("\n"));
}

/// What looks like an address and is more than a network, found in another way than the product does: word by word.
fn whole_addresses(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == ':'));
    let words =
        words.flat_map(|word| [Some(word), word.rsplit_once(':').map(|(host, _port)| host)]).flatten();
    let is_whole = |word: &&str| match word.parse::<IpAddr>() {
        Ok(IpAddr::V4(v4)) => v4.octets()[3] != 0 && !v4.is_loopback(),
        Ok(IpAddr::V6(v6)) => v6.segments()[3..] != [0; 5] && v6.segments()[0] > 0xff,
        Err(_) => false,
    };
    words.filter(is_whole).map(str::to_owned).collect()
}

/// In dumps of real clients no address is left, lines that are JSON stay JSON, and what follows from the copy is what
/// follows from the dump but for the addresses and the sizes.
#[test]
fn real_dumps_are_cut_and_keep_their_features() {
    let Some(folder) = conformance() else { return };
    let (mut found, mut failures) = (0, Vec::new());
    for name in names(&folder) {
        let bytes = dump(&folder, &name);
        let cut = privacy::cut(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        let cut_text = String::from_utf8_lossy(&cut);
        found += whole_addresses(&text).len();
        let left = whole_addresses(&cut_text);
        if !left.is_empty() {
            failures.push(format!("{name}: {:?} are left", &left[..left.len().min(5)]));
        }
        for (number, (line, cut)) in text.lines().zip(cut_text.lines()).enumerate() {
            let is_json = |line: &str| serde_json::from_str::<Value>(line).is_ok();
            if is_json(line) != is_json(cut) {
                failures.push(format!("{name}:{}: JSON is broken", number + 1));
            }
        }
        let document = |dump: &[u8]| {
            extract::extract(dump, &options(false, &name)).map(|document| serde_json::to_vec(&document))
        };
        let (Ok(Ok(of_dump)), Ok(Ok(of_copy))) = (document(&bytes), document(&cut)) else {
            failures.push(format!("{name}: no document"));
            continue;
        };
        let parse = |text: Vec<u8>| serde_json::from_slice::<Value>(&text).unwrap_or_default();
        let (mut of_dump, mut of_copy) = (parse(privacy::cut(&of_dump)), parse(of_copy));
        for document in [&mut of_dump, &mut of_copy] {
            if let Some(metrics) = document["features"]["metrics"].as_object_mut() {
                metrics.retain(|name, _| !name.ends_with("Bytes"));
            }
        }
        differences(&of_dump, &of_copy, &name, &[], &mut failures);
    }
    assert!(found > 500, "{found} addresses: the data are not what they were");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
