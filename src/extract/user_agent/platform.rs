//! Name, version and system of a browser: first guesses from the tables, then corrections in a fixed order.
//!
//! Rules: browser detection 3.1 to 3.4. The corrections name the step that they are.

use super::Found;
use super::tables::{
    BROWSERS, LAST_VERSION_PREFIXES, LAYOUTS, MANUFACTURERS, Named, PRODUCTS, SAFARI_VERSIONS, SYSTEMS,
    VERSION_PREFIXES, WINDOWS,
};
use super::text::{AgentText, is_word};

/// What is known so far.
#[derive(Debug)]
struct Guess {
    layout: Option<&'static str>,
    name: Option<String>,
    version: Option<String>,
    product: Option<String>,
    manufacturer: Option<&'static str>,
    os: Option<String>,
}

/// Finds name, version and system.
pub(super) fn find(agent: &AgentText<'_>) -> Found {
    let product = product(agent);
    let mut guess = Guess {
        layout: first_word(agent, LAYOUTS),
        name: first_word(agent, BROWSERS).map(str::to_owned),
        version: None,
        manufacturer: manufacturer(agent, product),
        product: product.map(str::to_owned),
        os: system(agent),
    };
    guess.find_product(agent);
    guess.correct_name_and_system(agent);
    guess.version = version(agent, guess.name.as_deref());
    guess.correct_windows_phone_and_ie11(agent);
    guess.mark_prerelease(agent);
    guess.add_mobile(agent);
    guess.correct_webkit_version(agent);
    guess.clean_system(agent);
    let os = guess.os_text(agent);
    // Without a name there is no version either, whatever was found.
    let version = guess.version.filter(|_| guess.name.is_some());
    Found { name: guess.name, version, os }
}

/// The first name of a table that stands somewhere as words of its own.
fn first_word(agent: &AgentText<'_>, table: &'static [Named]) -> Option<&'static str> {
    let is_there = |named: &&Named| named.patterns.iter().any(|pattern| agent.has_word(pattern));
    table.iter().find(is_there).map(|named| named.label)
}

fn product(agent: &AgentText<'_>) -> Option<&'static str> {
    let is_there =
        |named: &&Named| named.patterns.iter().any(|pattern| agent.find_at_word_start(pattern).is_some());
    PRODUCTS.iter().find(is_there).map(|named| named.label)
}

fn manufacturer(agent: &AgentText<'_>, product: Option<&str>) -> Option<&'static str> {
    // Behind the name a word ends, or goes on with a digit in it.
    let is_named = |name: &str| {
        agent.places_at_word_start(name).any(|(_, end)| {
            let length = agent.run(end, is_word);
            length == 0 || (end..end + length).any(|at| agent.at(at).is_ascii_digit())
        })
    };
    let makes_it = |products: &[&str]| product.is_some_and(|product| products.contains(&product));
    MANUFACTURERS.iter().find(|(name, products)| makes_it(products) || is_named(name)).map(|(name, _)| *name)
}

/// The operating system's text (3.1), cleaned.
fn system(agent: &AgentText<'_>) -> Option<String> {
    SYSTEMS.iter().find_map(|named| {
        let pattern = named.patterns.first()?;
        let (start, end) = agent.find_at_word_start(pattern)?;
        let is_number = |byte: u8| byte.is_ascii_digit() || byte == b'.';
        let numbers = if agent.at(end) == b'/' { agent.run(end + 1, is_number) } else { 0 };
        let behind = if numbers > 0 {
            end + 1 + numbers
        } else {
            end + agent.run(end, |byte| is_word(byte) || matches!(byte, b' ' | b'.'))
        };
        let text = agent.text();
        Some(clean_system(text.get(start..end)?, text.get(end..behind)?, named.label))
    })
}

/// Cleans a system's text: the part that the pattern found, what follows it, and what it is called.
fn clean_system(found: &str, behind: &str, label: &str) -> String {
    let whole = format!("{found}{behind}");
    let is_windows =
        starts_with_ignoring_case(&whole, "win") && !starts_with_ignoring_case(&whole, "windows phone ");
    let number = trailing_number(&whole);
    let windows = WINDOWS.iter().find(|(known, _)| is_windows && *known == number);
    let os = match windows {
        // The pattern is replaced in what the table says, which changes nothing there.
        Some((_, name)) => format!("Windows {name}"),
        None => format!("{label}{behind}"),
    };
    let mut os = replace_end_ignoring_case(&os, " ce", " CE");
    if starts_with_ignoring_case(&os, "hpw") {
        os = format!("web{}", os.get(3..).unwrap_or_default());
    }
    os = replace_word(&os, "Macintosh", "Mac OS").replacen("_PowerPC", " OS", 1);
    os = drop_word_after_os_x(&os);
    os = replace_word(&os, "Mac OS X", "OS X");
    let before_digit = os.as_bytes().windows(2).position(|pair| matches!(pair, [b'/', b'0'..=b'9']));
    if let Some(at) = before_digit {
        os.replace_range(at..=at, " ");
    }
    os = os.replace('_', ".");
    os = drop_fedora_build(&replace_end_ignoring_case(&os, " bepc", ""));
    os = os.replace("x86.64", "x86_64").replacen("Windows Phone OS", "Windows Phone", 1);
    os = drop_version_of_chrome_os(&os);
    let os = os.split(" on ").next().unwrap_or_default().trim();
    if ["webOS", "iOS", "iP"].iter().any(|prefix| os.starts_with(prefix)) {
        return os.to_owned();
    }
    let mut chars = os.chars();
    chars.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + chars.as_str())
}

impl Guess {
    /// 3.2, step 0: what device it is, where the tables do not know it.
    fn find_product(&mut self, agent: &AgentText<'_>) {
        if self.os_has_word("Android") && self.product.is_none() {
            self.product = android_product(agent);
        }
        if self.product.is_none() {
            self.product = self.manufacturer.map(str::to_owned);
        }
        if agent.has_word("Simulator") {
            let before = self.product.take().map_or_else(String::new, |product| product + " ");
            self.product = Some(before + "Simulator");
        }
    }

    /// 3.2: the first case that applies.
    fn correct_name_and_system(&mut self, agent: &AgentText<'_>) {
        let name = self.name.clone().unwrap_or_default();
        let is_android = self.os_has_word("Android");
        if name == "IE" && agent.text().contains("like iPhone OS") {
            return;
        }
        if self.product.as_ref().is_some_and(|product| product.starts_with("iP")) {
            self.name.get_or_insert_with(|| "Safari".to_owned());
            self.os = Some(format!("iOS{}", ios_version(agent)));
        } else if name == "Konqueror" && self.os.as_ref().is_some_and(|os| has_word_at_start(os, "Linux")) {
            self.os = Some("Kubuntu".to_owned());
        } else if self.is_android_browser(agent, &name) {
            self.name = Some("Android Browser".to_owned());
            if !is_android {
                self.os = Some("Android".to_owned());
            }
        } else if name == "Silk" {
            if agent.find_at_word_start("Mobi").is_none() {
                self.os = Some("Android".to_owned());
            }
        } else if matches!(&*name, "UC Browser" | "PaleMoon") && self.is_disguised(agent, &name) {
        } else if let Some(word) = device_word(agent).filter(|_| name == "Firefox") {
            self.os.get_or_insert_with(|| "Firefox OS".to_owned());
            self.product.get_or_insert_with(|| word.to_owned());
        } else {
            self.drop_false_positive(agent);
        }
    }

    /// Whether a UC Browser or PaleMoon says that it is something else, too; nothing follows from it.
    fn is_disguised(&self, agent: &AgentText<'_>, name: &str) -> bool {
        match name {
            "UC Browser" => agent.text().contains("UCWEB"),
            _ => agent.text().contains("Firefox/"),
        }
    }

    fn is_android_browser(&self, agent: &AgentText<'_>, name: &str) -> bool {
        let is_vita = self.product.as_ref().is_some_and(|product| has_word(product, "Vita"));
        let is_tablet = name.contains("Chrome") && !has_words_mobile_safari(agent);
        let has_manufacturer = self.manufacturer.is_some_and(|manufacturer| manufacturer != "Google");
        let is_web_view = self.os_has_word("Android")
            && name.starts_with("Chrome")
            && agent.places_at_word_start("Version").any(|(_, end)| agent.at(end) == b'/');
        (has_manufacturer && (is_tablet || is_vita)) || is_web_view
    }

    /// 3.2, step 7: Firefox or Safari that something else claims to be, and browsers without a name.
    fn drop_false_positive(&mut self, agent: &AgentText<'_>) {
        let word = match &self.name {
            None => "null",
            Some(_) if agent.has_word("Minefield") => return,
            Some(name) if has_word(name, "Firefox") => "Firefox",
            Some(name) if has_word(name, "Safari") => "Safari",
            Some(_) => return,
        };
        if self.name.is_some() && self.product.is_none() && goes_on(agent.text(), word) {
            self.name = None;
        }
        let known = self.product.as_deref().or(self.manufacturer);
        let os = self.os.as_deref();
        let is_device_os = os.is_some_and(|os| {
            ["Android", "Symbian OS", "Tablet OS", "webOS"].iter().any(|system| has_word(os, system))
        });
        if known.is_none() && !is_device_os {
            return;
        }
        let source = if self.os_has_word("Android") { os } else { known.or(os) };
        if let Some(letters) = source.and_then(first_letters) {
            self.name = Some(format!("{letters} Browser"));
        }
    }

    /// 3.4, step 1.
    fn correct_windows_phone_and_ie11(&mut self, agent: &AgentText<'_>) {
        if agent.has_word("WPDesktop") {
            self.name = Some("IE Mobile".to_owned());
            self.os = Some("Windows Phone 8.x".to_owned());
            if self.version.is_none() {
                self.version = revision(agent);
            }
        } else if self.name.as_deref() != Some("IE")
            && self.layout == Some("Trident")
            && let Some(revision) = revision(agent)
        {
            self.name = Some("IE".to_owned());
            self.version = Some(revision);
        }
    }

    /// 3.4, step 2.
    fn mark_prerelease(&mut self, agent: &AgentText<'_>) {
        let Some(version) = &self.version else { return };
        let Some(phase) = prerelease_ending(version)
            .map(str::to_owned)
            .or_else(|| prerelease_word(agent))
            .or_else(|| agent.has_word("Minefield").then(|| "a".to_owned()))
        else {
            return;
        };
        let without_plus = version.strip_suffix('+').unwrap_or(version);
        let base =
            version.strip_suffix(&*phase).or_else(|| without_plus.strip_suffix(&*phase)).unwrap_or(version);
        let sign = if phase.to_ascii_lowercase().contains('b') { 'β' } else { 'α' };
        let digits =
            phase.find(|c: char| c.is_ascii_digit()).and_then(|at| phase.get(at..)).unwrap_or_default();
        let digits = digits.split(|c: char| !c.is_ascii_digit() && c != '+').next().unwrap_or_default();
        self.version = Some(format!("{base}{sign}{digits}"));
    }

    /// 3.4, step 3: the first that applies.
    fn add_mobile(&mut self, agent: &AgentText<'_>) {
        let name = self.name.clone().unwrap_or_default();
        let is_firefox_device =
            ["Android", "Firefox OS", "KaiOS"].iter().any(|system| self.os_has_word(system));
        let is_plain = matches!(&*name, "Chrome" | "IE" | "Opera")
            || (!name.is_empty()
                && self.product.is_none()
                && !name.contains("Browser")
                && !name.contains("Mobi"));
        if name == "Fennec" || (name == "Firefox" && is_firefox_device) {
            self.name = Some("Firefox Mobile".to_owned());
        } else if name == "Maxthon"
            && let Some(version) = &self.version
        {
            self.version = Some(match version.split_once('.') {
                Some((major, rest)) => {
                    format!("{major}.x{}", rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.'))
                }
                None => version.clone(),
            });
        } else if self.product.as_ref().is_some_and(|product| has_word_ignoring_case(product, "xbox")) {
            if self.product.as_deref() == Some("Xbox 360") {
                self.os = None;
            }
        } else if is_plain && (self.os.as_deref() == Some("Windows CE") || agent.has("mobi")) {
            self.name = Some(name + " Mobile");
        } else if self.is_blackberry(agent) {
            self.correct_blackberry(agent);
        } else {
            self.unmask_opera(agent, &name);
        }
    }

    fn is_blackberry(&self, agent: &AgentText<'_>) -> bool {
        let by_product = self.product.as_ref().is_some_and(|product| has_word(product, "BlackBerry"));
        (by_product || agent.text().contains("BB10")) && self.version.is_some()
    }

    fn correct_blackberry(&mut self, agent: &AgentText<'_>) {
        let version = self.version.take().unwrap_or_default();
        let kind = if agent.text().contains("BB10") { "BlackBerry" } else { "Device Software" };
        self.os = Some(format!("{kind} {version}"));
    }

    /// Browsers whose system or version is impossible are Opera in disguise.
    fn unmask_opera(&mut self, agent: &AgentText<'_>, name: &str) {
        if agent.has_word("Opera") || self.product.as_deref() == Some("Wii") {
            return;
        }
        let os = self.os.as_deref().unwrap_or_default();
        let version = self.version.as_deref().and_then(|version| version.parse::<f64>().ok());
        let above = |limit: f64| version.is_some_and(|version| version > limit);
        let is_ie = name == "IE"
            && ((!os.is_empty() && !os.starts_with("Win") && above(5.5))
                || (has_word(os, "Windows XP") && above(8.0))
                || (version == Some(8.0) && !agent.text().contains("Trident")));
        let is_firefox = name == "Firefox" && has_two_points_behind_os_x(os);
        if is_ie || is_firefox {
            self.name = Some("Opera".to_owned());
            self.version = None;
        }
        if is_ie {
            self.os = None;
        }
    }

    /// 3.4, steps 4 and 5.
    fn correct_webkit_version(&mut self, agent: &AgentText<'_>) {
        if let Some(build) = number_behind(agent, "AppleWebKit/") {
            if self.name.as_deref() == Some("Safari") && build.ends_with('+') {
                self.name = Some("WebKit Nightly".to_owned());
                self.version = Some(build.trim_end_matches('+').to_owned());
            } else if self.version.as_deref() == Some(build)
                || self.version.as_deref() == number_behind(agent, "Safari/")
            {
                self.version = None;
            }
            let is_safari = self.name.as_deref() == Some("Safari");
            let major = self.version.as_deref().map(leading_integer);
            if is_safari && major.is_none_or(|major| major.is_some_and(|major| major > 45)) {
                let engine = engine_number(build);
                let named = SAFARI_VERSIONS.iter().find(|(below, _)| engine < *below);
                self.version = named.map(|(_, version)| (*version).to_owned());
            }
        }
        if self.version.is_none() && self.name.as_ref().is_some_and(|name| has_word(name, "SRWare Iron")) {
            self.version = version_behind(agent, &["Chrome"]);
        }
    }

    /// 3.4, step 6.
    fn clean_system(&mut self, agent: &AgentText<'_>) {
        let Some(os) = &mut self.os else { return };
        let number = trailing_number(os).to_owned();
        if !number.is_empty()
            && self.version.as_ref().is_some_and(|version| version.starts_with(&number))
            && agent.text().contains(&format!("/{number}-"))
        {
            *os = os.replacen(&number, "", 1).trim().to_owned();
        }
        if let Some(name) = self.name.as_ref().filter(|name| !name.is_empty())
            && let Some(at) = os.find(&**name)
            && !os.contains(&format!("{name} OS"))
        {
            let before = os.get(..at).unwrap_or_default().trim_end_matches(' ');
            let behind = os.get(at + name.len()..).unwrap_or_default().trim_start_matches(' ');
            *os = format!("{before}{behind}");
        }
    }

    /// 3.4, step 7: family, version and architecture.
    fn os_text(&self, agent: &AgentText<'_>) -> Option<String> {
        let os = self.os.as_ref().filter(|os| !os.is_empty())?;
        let is_number = |c: char| c.is_ascii_digit() || matches!(c, '.' | '+');
        let without_number = os.trim_end_matches(is_number);
        let has_number = without_number.len() < os.len() && without_number.ends_with(' ');
        let family_end = without_number.len().saturating_sub(1);
        // `Server 2008 R2 / 7` is not split.
        let is_split = has_number && os.get(..family_end).is_some_and(|family| !family.ends_with('/'));
        let (family, number) = if is_split { os.split_at(family_end) } else { (&**os, "") };
        let mut family = family.to_owned();
        let mut is_64 = false;
        if let Some(word) = architecture_word(agent).filter(|_| !agent.has_word("i686")) {
            is_64 = true;
            if let Some(at) = family.find(word) {
                let before = family.get(..at).unwrap_or_default().trim_end_matches(' ').to_owned();
                family = before + family.get(at + word.len()..).unwrap_or_default();
            }
        } else if family.starts_with("OS X") && self.name.as_deref() == Some("Chrome") {
            is_64 = self.version.as_deref().and_then(leading_integer).is_some_and(|major| major >= 39);
        }
        Some(format!("{family}{number}{}", if is_64 { " 64-bit" } else { "" }))
    }

    fn os_has_word(&self, word: &str) -> bool {
        self.os.as_ref().is_some_and(|os| has_word(os, word))
    }
}

/// 3.3: the version behind the first prefix that has one.
fn version(agent: &AgentText<'_>, name: Option<&str>) -> Option<String> {
    version_behind(agent, VERSION_PREFIXES)
        .or_else(|| version_behind(agent, &["Version"]))
        .or_else(|| version_behind(agent, &[name.unwrap_or("null")]))
        .or_else(|| version_behind(agent, LAST_VERSION_PREFIXES))
}

/// The version at the first place where one of the prefixes has one behind it.
fn version_behind(agent: &AgentText<'_>, prefixes: &[&str]) -> Option<String> {
    let at_place = |at: usize, prefix: &&str| {
        let end = agent.match_name(at, prefix)?;
        if *prefix == "Silk" && is_silk_at_the_end(agent, end) {
            return None;
        }
        version_at(agent, end)
    };
    let starts: Vec<u8> = prefixes.iter().filter_map(|prefix| prefix.bytes().next()).collect();
    let starts = |at: &usize| starts.iter().any(|start| start.to_ascii_lowercase() == agent.at(*at));
    (0..agent.lower().len())
        .filter(starts)
        .find_map(|at| prefixes.iter().find_map(|prefix| at_place(at, prefix)))
}

fn is_silk_at_the_end(agent: &AgentText<'_>, end: usize) -> bool {
    let length = agent.run(end + 1, |byte| byte.is_ascii_digit() || byte == b'.');
    agent.at(end) == b'/' && length > 0 && end + 1 + length == agent.lower().len()
}

/// The version behind a prefix: after `-N/`, or after a space, `/` or `-` with perhaps ` for X` before it.
fn version_at(agent: &AgentText<'_>, end: usize) -> Option<String> {
    let is_number = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    let number = |at: usize| {
        let digits = agent.run(at, is_number);
        let rest =
            agent.run(at + digits, |byte| !matches!(byte, b' ' | b'(' | b')' | b';' | b'/' | b'_' | b'-'));
        let text = agent.text().get(at..at + digits + rest)?;
        (digits > 0).then(|| text.to_owned())
    };
    if agent.at(end) == b'-' {
        let length = agent.run(end + 1, is_number);
        if length > 0
            && agent.at(end + 1 + length) == b'/'
            && let Some(version) = number(end + length + 2)
        {
            return Some(version);
        }
    }
    let separated =
        |at: usize| if matches!(agent.at(at), b' ' | b'/' | b'-') { number(at + 1) } else { None };
    if agent.lower().get(end..).is_some_and(|rest| rest.starts_with(" for ")) {
        let word = agent.run(end + 5, |byte| is_word(byte) || byte == b'-');
        // The word may itself contain the separator, so shorter ones are tried, too.
        if let Some(version) = (1..=word).rev().find_map(|length| separated(end + 5 + length)) {
            return Some(version);
        }
    }
    separated(end)
}

/// The device that an Android browser names behind `Android ...;`.
fn android_product(agent: &AgentText<'_>) -> Option<String> {
    let (_, end) = agent.find_at_word_start("Android")?;
    let rest = agent.lower().get(end..)?;
    let start = end + rest.find(';')? + 1;
    let rest = agent.lower().get(start..)?;
    let ends_at = |marker: &str| {
        rest.match_indices(marker)
            .map(|(at, _)| at)
            .find(|at| rest.as_bytes().get(at + marker.len()).is_none_or(|byte| !is_word(*byte)))
    };
    let end = [ends_at("build"), ends_at(") applewebkit")].into_iter().flatten().min()?;
    let product = agent.text().get(start..start + end)?.trim();
    let is_language = |text: &str| matches!(text.as_bytes(), [a, b, b'-', c, d, b';', ..] if [a, b, c, d].iter().all(|byte| byte.is_ascii_alphabetic()));
    let product =
        if is_language(product) { product.get(6..).unwrap_or_default().trim_start() } else { product };
    (!product.is_empty()).then(|| product.to_owned())
}

/// ` 17.1` of `... OS 17_1 ...`, or nothing.
fn ios_version(agent: &AgentText<'_>) -> String {
    let number = agent.ends_of(" os ").find_map(|end| {
        let length = agent.run(end, |byte| byte.is_ascii_digit() || byte == b'_');
        agent.text().get(end..end + length).filter(|number| !number.is_empty())
    });
    number.map_or_else(String::new, |number| format!(" {}", number.replace('_', ".")))
}

fn has_words_mobile_safari(agent: &AgentText<'_>) -> bool {
    agent
        .ends_of("mobile safari")
        .any(|end| agent.is_word_start(end - "mobile safari".len()) && agent.is_word_end(end))
}

/// The first of the words that tell Firefox's devices, as it is spelled.
fn device_word<'a>(agent: &AgentText<'a>) -> Option<&'a str> {
    let places = ["Mobile", "Tablet", "TV"].iter().flat_map(|word| agent.places_at_word_start(word));
    let (start, end) = places.filter(|(_, end)| agent.is_word_end(*end)).min()?;
    agent.text().get(start..end)
}

/// Whether the user agent goes on behind a browser's version as that browser's own never does.
fn goes_on(text: &str, word: &str) -> bool {
    // Not found counts as one before the start, as in JavaScript.
    let units: Vec<u16> = text.encode_utf16().collect();
    let wanted: Vec<u16> = format!("{word}/").encode_utf16().collect();
    let from = units.windows(wanted.len()).position(|window| window == wanted).map_or(7, |at| at + 8);
    let rest = String::from_utf16_lossy(units.get(from..).unwrap_or_default());
    let closed = rest.find(')').is_some_and(|at| at > 0 && !rest.get(..at).unwrap_or_default().contains('('));
    rest.contains(['/', ',']) || closed
}

/// The first run of letters, with ` Hat` behind it where that follows.
fn first_letters(text: &str) -> Option<&str> {
    let start = text.find(|c: char| c.is_ascii_alphabetic())?;
    let rest = text.get(start..)?;
    let length = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let hat = rest.get(length..length + 4).is_some_and(|behind| behind.eq_ignore_ascii_case(" hat"));
    rest.get(..length + if hat { 4 } else { 0 })
}

/// The number behind `rv:`.
fn revision(agent: &AgentText<'_>) -> Option<String> {
    let end = agent.ends_of("rv:").find(|end| {
        agent.is_word_start(end - 3) && agent.run(*end, |byte| byte.is_ascii_digit() || byte == b'.') > 0
    })?;
    let length = agent.run(end, |byte| byte.is_ascii_digit() || byte == b'.');
    agent.text().get(end..end + length).map(str::to_owned)
}

/// The ending of a version that tells a pre-release: `a1`, `b`, `dp`, `pre`.
fn prerelease_ending(version: &str) -> Option<&str> {
    let is_count = |text: &str| {
        let digits = text.strip_suffix('+').unwrap_or(text);
        text.is_empty() || (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let is_ending = |ending: &str| {
        let lower = ending.to_ascii_lowercase();
        let letter = lower.strip_prefix(['a', 'b']);
        let before_pre = letter.map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
        let has_digits = letter.zip(before_pre).is_some_and(|(rest, trimmed)| trimmed.len() < rest.len());
        let pre_behind = before_pre.filter(|_| has_digits).and_then(|rest| rest.strip_prefix("pre"));
        [letter, lower.strip_prefix("dp"), lower.strip_prefix("pre"), pre_behind]
            .into_iter()
            .flatten()
            .any(is_count)
    };
    version.char_indices().filter_map(|(at, _)| version.get(at..)).find(|ending| is_ending(ending))
}

/// `alpha` or `beta` in the user agent, with a digit behind it where there is one.
fn prerelease_word(agent: &AgentText<'_>) -> Option<String> {
    let (start, end) = ["alpha", "beta"]
        .iter()
        .filter_map(|word| agent.ends_of(word).next().map(|end| (end - word.len(), end)))
        .min()?;
    let gap = usize::from(agent.at(end) == b' ');
    let end = if agent.at(end + gap).is_ascii_digit() { end + gap + 1 } else { end };
    agent.text().get(start..end).map(str::to_owned)
}

/// The first word that tells a processor of 64 bits, as it is spelled.
fn architecture_word<'a>(agent: &AgentText<'a>) -> Option<&'a str> {
    const WORDS: [&str; 6] = ["AMD64", "IA64", "Win64", "WOW64", "x86_64", "x64"];
    let places = WORDS.iter().flat_map(|word| agent.places_at_word_start(word));
    let (start, end) = places.filter(|(_, end)| agent.is_word_end(*end)).min()?;
    agent.text().get(start..end)
}

/// Digits and points, perhaps with `+` behind, that follow a prefix at the start of a word.
fn number_behind<'a>(agent: &AgentText<'a>, prefix: &str) -> Option<&'a str> {
    let lower = prefix.to_ascii_lowercase();
    agent.ends_of(&lower).find_map(|end| {
        let length = agent.run(end, |byte| byte.is_ascii_digit() || byte == b'.');
        let plus = usize::from(agent.at(end + length) == b'+');
        let is_there = agent.is_word_start(end - prefix.len()) && length > 0;
        agent.text().get(end..end + length + plus).filter(|_| is_there)
    })
}

/// The number of an engine: `537.36` as it is, `532.5` as 532.05.
fn engine_number(build: &str) -> f64 {
    let digits = build.trim_end_matches('+');
    let corrected = match digits.rsplit_once('.') {
        Some((before, last)) if last.len() == 1 && !build.ends_with('+') => format!("{before}.0{last}"),
        _ => digits.to_owned(),
    };
    // Only what comes before a second point is read.
    let mut parts = corrected.splitn(3, '.');
    let (whole, fraction) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    format!("{whole}.{fraction}").trim_end_matches('.').parse().unwrap_or(f64::NAN)
}

/// The integer that a text starts with.
fn leading_integer(text: &str) -> Option<u64> {
    let length = text.bytes().take_while(u8::is_ascii_digit).count();
    text.get(..length)?.parse().ok()
}

/// Digits and points at the end.
fn trailing_number(text: &str) -> &str {
    let before = text.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    text.get(before.len()..).unwrap_or_default()
}

/// Whether a text contains a word; case matters.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let bytes = text.as_bytes();
        let before = at.checked_sub(1).and_then(|at| bytes.get(at));
        let behind = bytes.get(at + word.len());
        before.is_none_or(|byte| !is_word(*byte)) && behind.is_none_or(|byte| !is_word(*byte))
    })
}

fn has_word_ignoring_case(text: &str, word: &str) -> bool {
    has_word(&text.to_ascii_lowercase(), word)
}

fn has_word_at_start(text: &str, word: &str) -> bool {
    text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
        && text.as_bytes().get(word.len()).is_none_or(|byte| !is_word(*byte))
}

fn starts_with_ignoring_case(text: &str, start: &str) -> bool {
    text.get(..start.len()).is_some_and(|text| text.eq_ignore_ascii_case(start))
}

fn replace_end_ignoring_case(text: &str, end: &str, with: &str) -> String {
    let at = text.len().checked_sub(end.len());
    match at.and_then(|at| Some((text.get(..at)?, text.get(at..)?))) {
        Some((before, found)) if found.eq_ignore_ascii_case(end) => format!("{before}{with}"),
        _ => text.to_owned(),
    }
}

fn replace_word(text: &str, word: &str, with: &str) -> String {
    if has_word(text, word) { text.replacen(word, with, 1) } else { text.to_owned() }
}

/// `OS X Mach ...` -> `OS X ...`
fn drop_word_after_os_x(os: &str) -> String {
    let Some(at) = os.find("OS X ") else { return os.to_owned() };
    let (before, rest) = os.split_at(at + "OS X ".len());
    let length = rest.find(|c: char| c == ' ' || c.is_ascii_digit()).unwrap_or(rest.len());
    if length == 0 {
        return os.to_owned();
    }
    format!("{}{}", before.trim_end_matches(' '), rest.get(length..).unwrap_or_default())
}

/// `Linux 2.6.fc12` -> `Linux 2.6`
fn drop_fedora_build(os: &str) -> String {
    let before = os.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, ' ' | '.'));
    let length = before.len().checked_sub(2).filter(|_| before.len() < os.len());
    match length.and_then(|length| Some((before.get(..length)?, before.get(length..)?))) {
        Some((kept, build)) if build.eq_ignore_ascii_case("fc") => {
            kept.trim_end_matches([' ', '.']).to_owned()
        }
        _ => os.to_owned(),
    }
}

/// `Chrome OS x86_64 14541.0.0` -> `Chrome OS x86_64`
fn drop_version_of_chrome_os(os: &str) -> String {
    let Some(rest) = os.strip_prefix("Chrome OS ") else { return os.to_owned() };
    let Some((word, number)) = rest.split_once(' ') else { return os.to_owned() };
    let length = number.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    if length == 0 || !word.bytes().all(is_word) {
        return os.to_owned();
    }
    format!("Chrome OS {word}{}", number.get(length..).unwrap_or_default())
}

/// `OS X 10.4.11`: at least two points behind `OS X`.
fn has_two_points_behind_os_x(os: &str) -> bool {
    os.split_once("OS X ").is_some_and(|(_, number)| {
        let mut parts = number.split('.');
        let is_number = |part: Option<&str>| {
            part.is_some_and(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
        };
        is_number(parts.next()) && is_number(parts.next()) && parts.next().is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(agent: &str, name: &str, version: &str, os: &str) {
        let found = find(&AgentText::new(agent));
        let text = |part: Option<String>| part.unwrap_or_else(|| "null".to_owned());
        assert_eq!(
            (&*text(found.name), &*text(found.version), &*text(found.os)),
            (name, version, os),
            "{agent}"
        );
    }

    #[test]
    fn names_versions_and_systems() {
        // One for each correction; the conformance table has the rest.
        let webkit = "AppleWebKit/537.36 (KHTML, like Gecko)";
        check(
            &format!("Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {webkit} Chrome/119.0.0.0 Safari/537.36"),
            "Chrome",
            "119.0.0.0",
            "Chrome OS 64-bit",
        );
        check(
            &format!("Mozilla/5.0 (Linux; Android 9; Lenovo TB-X606F) {webkit} Chrome/91.0 Safari/537.36"),
            "Android Browser",
            "null",
            "Android 9",
        );
        check(
            &format!("Mozilla/5.0 (Windows NT 6.1) {webkit} Chrome/109.0 Safari/537.36"),
            "Chrome",
            "109.0",
            "Windows Server 2008 R2 / 7",
        );
        check(
            "Mozilla/5.0 (X11; Linux i686; rv:128.0a1) Gecko/20100101 Firefox/128.0a1",
            "Firefox",
            "128.0α1",
            "Linux i686",
        );
        check(
            "Mozilla/5.0 (Mobile; rv:48.0) Gecko/48.0 Firefox/48.0 KAIOS/2.5",
            "Firefox Mobile",
            "48.0",
            "KaiOS 2.5",
        );
        check(
            "Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko",
            "IE",
            "11.0",
            "Windows 10 64-bit",
        );
        check(
            "Mozilla/5.0 (PlayStation 4 3.11) AppleWebKit/537.73 (KHTML, like Gecko)",
            "PlayStation Browser",
            "null",
            "null",
        );
        check("curl/8.4.0", "null", "null", "null");
    }

    #[test]
    fn systems_are_cleaned() {
        let cases = [
            ("Mac OS X", " 10_15_7", "Mac OS X", "OS X 10.15.7"),
            ("Macintosh", "", "Macintosh", "Mac OS"),
            ("Windows ", "NT 5.01", "Windows ", "Windows 2000 SP1"),
            ("Linux", " 2.6.fc12", "Linux", "Linux 2.6"),
            ("tizen", " 6.0", "Tizen", "Tizen 6.0"),
            ("Symbian OS", "/9.1 on x", "Symbian OS", "Symbian OS 9.1"),
            ("webOS", "/2.1", "webOS", "webOS 2.1"),
        ];
        for (found, behind, label, clean) in cases {
            assert_eq!(clean_system(found, behind, label), clean);
        }
    }

    #[test]
    fn versions_stand_behind_their_prefix() {
        let cases = [
            ("Opera Mini/12.0.1987/37.7327", "Opera Mini", Some("12.0.1987")),
            ("Name for Some-Thing-1.2b;", "Name", Some("1.2b")),
            ("Name-5/7.0)", "Name", Some("7.0")),
            ("Name/ 7.0", "Name", None),
            ("JitsiMeetName/2023.9.2 Name/25", "Name", Some("2023.9.2")),
        ];
        for (agent, prefix, version) in cases {
            assert_eq!(version_behind(&AgentText::new(agent), &[prefix]).as_deref(), version, "{agent}");
        }
    }
}
