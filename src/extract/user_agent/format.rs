//! The browser's name for the stats format: the first rule that matches decides.
//!
//! Only names that begin like a supported browser matter; the other rules are there because they come first.
//! Rules: browser detection 1.

use super::StatsFormat;
use super::text::{AgentText, is_version, is_word};

/// What is looked at; longer user agents are cut (in UTF-16 code units).
const LENGTH_MAX: usize = 500;

/// What a rule looks for. All texts are in lower case.
#[derive(Debug)]
enum Pattern {
    /// One of the texts, anywhere.
    Has(&'static [&'static str]),
    /// One of the texts and a version behind `/`, anywhere.
    Slash(&'static [&'static str]),
    /// The same, but the text starts a word.
    WordSlash(&'static [&'static str]),
    /// One of the texts and a version behind `/` or a space.
    SlashOrSpace(&'static [&'static str]),
    /// One of the texts and a version, with at most one `/` or space between.
    Loose(&'static [&'static str]),
    /// One of the texts and a version behind `/`, at the very end.
    SlashAtEnd(&'static [&'static str]),
    /// The texts one after the other, something between each.
    InOrder(&'static [&'static str]),
    /// What takes more than a table: whether, or as which text, it is there.
    Special(for<'a> fn(&AgentText<'a>) -> Option<&'a str>),
}

/// What a rule says.
#[derive(Debug)]
enum Name {
    /// A browser with this format, whatever its name.
    Is(StatsFormat),
    /// The name is as the user agent spells it, and case matters then.
    AsSpelled,
}

use Name::{AsSpelled, Is};
use Pattern::{Has, InOrder, Loose, Slash, SlashAtEnd, SlashOrSpace, Special, WordSlash};
use StatsFormat::{ChromeStandard, Firefox, Safari, Unsupported};

static RULES: &[(Pattern, Name)] = &[
    (WordSlash(&["crmo", "crios"]), Is(ChromeStandard)),
    (Slash(&["edg", "edge", "edgios", "edga"]), Is(ChromeStandard)),
    (Special(opera), Is(Unsupported)),
    (Loose(&["opios"]), Is(Unsupported)),
    (WordSlash(&["opr"]), Is(Unsupported)),
    (Slash(&["kindle"]), Is(Unsupported)),
    (
        Has(&["lunascape", "maxthon", "netfront", "jasmine", "blazer", "avant ", "iemobile", "slim"]),
        Is(Unsupported),
    ),
    (Loose(&["baidubrowser", "bidubrowser"]), Is(Unsupported)),
    (Special(internet_explorer), Is(Unsupported)),
    (
        Slash(&[
            "flock",
            "rockmelt",
            "midori",
            "epiphany",
            "silk",
            "skyfire",
            "bolt",
            "iron",
            "vivaldi",
            "iridium",
            "phantomjs",
            "bowser",
            "quark",
            "qupzilla",
            "falkon",
            "rekonq",
            "puffin",
            "brave",
            "qqbrowserlite",
            "qq",
            "duckduckgo",
            "heytapbrowser",
            "ovibrowser",
            "konqueror",
            "yabrowser",
            "yasearchbrowser",
            "avast",
            "avg",
            "micromessenger",
        ]),
        Is(Unsupported),
    ),
    (Special(whale), Is(Unsupported)),
    (Has(&["weibo__"]), Is(Unsupported)),
    (Special(uc_browser), Is(Unsupported)),
    (Special(wechat_desktop), Is(Unsupported)),
    (InOrder(&["trident", "rv", "like gecko"]), Is(Unsupported)),
    (WordSlash(&["focus"]), Is(Firefox)),
    (WordSlash(&["opt"]), Is(Unsupported)),
    (Special(coc_coc), Is(Unsupported)),
    (Slash(&["dolfin", "coast", "miuibrowser"]), Is(Unsupported)),
    (Slash(&["fxios"]), Is(Firefox)),
    (Special(qihoo), Is(Unsupported)),
    (
        Slash(&["oculusbrowser", "samsungbrowser", "sailfishbrowser", "huaweibrowser", "comodo_dragon"]),
        Is(Unsupported),
    ),
    (Special(electron), AsSpelled),
    (Special(tesla), Is(Unsupported)),
    (Loose(&["qqbrowser", "baiduboxapp", "2345explorer", "metasr"]), Is(Unsupported)),
    (Has(&["lbbrowser", "[linkedinapp]"]), Is(Unsupported)),
    (Special(facebook), Is(Unsupported)),
    (SlashOrSpace(&["kakaotalk", "kakaostory"]), Is(Unsupported)),
    (Special(naver), Is(Unsupported)),
    (Slash(&["safari line"]), Is(Unsupported)),
    (Special(line), Is(Unsupported)),
    (SlashOrSpace(&["chromium", "instagram", "snapchat"]), Is(Unsupported)),
    (Special(google_app), Is(Unsupported)),
    (Special(musically), Is(Unsupported)),
    (Special(headless_chrome), Is(ChromeStandard)),
    (Special(web_view), Is(ChromeStandard)),
    (Special(android_browser), Is(Unsupported)),
    (Special(chrome), AsSpelled),
    (Special(mobile_safari), Is(Safari)),
    (Special(safari_with_version), AsSpelled),
    (Special(safari), AsSpelled),
    (Slash(&["webkit", "khtml"]), Is(Unsupported)),
    (Special(netscape), Is(Unsupported)),
    (Special(firefox_reality), Is(Firefox)),
    (InOrder(&["ekiohf", "flow/"]), Is(Unsupported)),
    (Has(&["swiftfox"]), Is(Unsupported)),
    (
        Loose(&[
            "icedragon",
            "iceweasel",
            "camino",
            "chimera",
            "fennec",
            "maemo browser",
            "minimo",
            "conkeror",
            "klar",
        ]),
        Is(Unsupported),
    ),
    (
        SlashAtEnd(&[
            "seamonkey",
            "k-meleon",
            "icecat",
            "iceape",
            "firebird",
            "phoenix",
            "palemoon",
            "basilisk",
            "waterfox",
        ]),
        Is(Unsupported),
    ),
    (Special(firefox), AsSpelled),
];

/// The stats format of a user agent that is not React Native's.
pub(super) fn stats_format(user_agent: &str) -> StatsFormat {
    let user_agent = cut(user_agent);
    let agent = AgentText::new(user_agent);
    for (pattern, name) in RULES {
        if let Some(spelled) = pattern.find(&agent) {
            return match name {
                Is(format) => *format,
                AsSpelled => StatsFormat::of_browser(spelled),
            };
        }
    }
    Unsupported
}

/// Cuts what is too long, white space at its start first.
fn cut(user_agent: &str) -> &str {
    if user_agent.len() <= LENGTH_MAX || super::super::js::utf16_len(user_agent) <= LENGTH_MAX {
        return user_agent;
    }
    let user_agent = user_agent.trim_start();
    let mut units = 0;
    let end = user_agent.char_indices().find(|(_, c)| {
        units += c.len_utf16();
        units > LENGTH_MAX
    });
    end.and_then(|(end, _)| user_agent.get(..end)).unwrap_or(user_agent)
}

impl Pattern {
    /// The text found (empty where it does not matter).
    fn find<'a>(&self, agent: &AgentText<'a>) -> Option<&'a str> {
        let versioned = |end: usize| is_version(agent.at(end));
        let any = |texts: &[&str], test: &dyn Fn(&str, usize) -> bool| {
            let found = texts.iter().any(|text| agent.ends_of(text).any(|end| test(text, end)));
            found.then_some("")
        };
        match self {
            Has(texts) => texts.iter().any(|text| agent.has(text)).then_some(""),
            Slash(texts) => any(texts, &|_, end| agent.at(end) == b'/' && versioned(end + 1)),
            WordSlash(texts) => any(texts, &|text, end| {
                agent.is_word_start(end - text.len()) && agent.at(end) == b'/' && versioned(end + 1)
            }),
            SlashOrSpace(texts) => {
                any(texts, &|_, end| matches!(agent.at(end), b'/' | b' ') && versioned(end + 1))
            }
            Loose(texts) => any(texts, &|_, end| {
                versioned(end) || (matches!(agent.at(end), b'/' | b' ') && versioned(end + 1))
            }),
            SlashAtEnd(texts) => any(texts, &|_, end| {
                let length = agent.run(end + 1, |byte| is_version(byte) || byte == b'-');
                agent.at(end) == b'/' && length > 0 && end + 1 + length == agent.lower().len()
            }),
            InOrder(texts) => in_order(agent, texts).then_some(""),
            Special(find) => find(agent),
        }
    }
}

/// Whether the texts follow each other with at least one character between.
fn in_order(agent: &AgentText<'_>, texts: &[&str]) -> bool {
    let mut rest = agent.lower();
    for (at, text) in texts.iter().enumerate() {
        // Behind a text at least one character is passed over before the next one.
        let skipped =
            if at == 0 { Some(rest) } else { rest.chars().next().and_then(|c| rest.get(c.len_utf8()..)) };
        match skipped.and_then(|rest| rest.split_once(text)) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    true
}

fn found(is_there: bool) -> Option<&'static str> {
    is_there.then_some("")
}

fn opera<'a>(agent: &AgentText<'a>) -> Option<&'a str> {
    let versioned = |end: usize| {
        let gap = agent.run(end, |byte| matches!(byte, b'/' | b' '));
        gap > 0 && is_version(agent.at(end + gap))
    };
    found(agent.ends_of("opera").any(versioned) || in_order(agent, &["opera", "version/"]))
}

fn internet_explorer<'a>(agent: &AgentText<'a>) -> Option<&'a str> {
    found(["msie ", "(ie "].iter().any(|text| agent.ends_of(text).any(|end| is_version(agent.at(end)))))
}

fn whale<'a>(agent: &AgentText<'a>) -> Option<&'a str> {
    let has_naver = |end: usize| agent.lower().get(end..).is_some_and(|rest| in_order_from(rest, "naver"));
    found(
        agent
            .ends_of("whale")
            .any(|end| !has_naver(end) && agent.at(end) == b'/' && is_version(agent.at(end + 1))),
    )
}

/// Whether a text follows with at least one character before it.
fn in_order_from(rest: &str, text: &str) -> bool {
    let mut chars = rest.chars();
    chars.next().is_some() && chars.as_str().contains(text)
}

fn uc_browser<'a>(agent: &AgentText<'a>) -> Option<&'a str> {
    let versioned = |end: usize| {
        is_version(agent.at(end)) || (matches!(agent.at(end), b'/' | b' ') && is_version(agent.at(end + 1)))
    };
    let names = ["ucbrowser", "uc browser", "ubrowser", "u browser"];
    let by_name = names
        .iter()
        .any(|name| agent.ends_of(name).any(|end| agent.is_word_start(end - name.len()) && versioned(end)));
    found(by_name || (in_order(agent, &["juc", "ucweb"]) && agent.ends_of("ucweb").any(versioned)))
}

fn wechat_desktop<'a>(agent: &AgentText<'a>) -> Option<&'a str> {
    found(agent.has("qbcore/") && agent.has("microm"))
}

fn coc_coc<'a>(agent: &AgentText<'a>) -> Option<&'a str> {
    found(agent.ends_of("coc_coc").any(|end| {
        let length = agent.run(end, is_word);
        length > 0 && agent.at(end + length) == b'/' && is_version(agent.at(end + length + 1))
    }))
}

fn qihoo<'a>(agent: &AgentText<'a>) -> Option<&'a str> {
    const NAMES: [&str; 9] = [
        "360browser",
        "qihoobrowser",
        "qihobrowser",
        "qihbrowser",
        "qhoobrowser",
        "qhobrowser",
        "qhbrowser",
        "qioobrowser",
        "qiobrowser",
    ];
    let at_word = agent.ends_of("qihu").any(|end| agent.is_word_start(end - 4));
    found(at_word || NAMES.iter().any(|name| agent.has(name)))
}

fn electron<'a>(agent: &AgentText<'a>) -> Option<&'a str> {
    let end = agent.ends_of("electron/").find(|end| {
        let length = agent.run(*end, is_version);
        length > 0 && agent.lower().get(end + length..).is_some_and(|rest| rest.starts_with(" safari"))
    })?;
    agent.text().get(end - "electron/".len()..end - 1)
}

fn tesla<'a>(agent: &AgentText<'a>) -> Option<&'a str> {
    let behind = |end: usize| agent.lower().get(end..).unwrap_or_default();
    found(
        agent
            .ends_of("tesla")
            .any(|end| behind(end).starts_with(" qtcarbrowser") || behind(end).starts_with("/20")),
    )
}

fn facebook<'a>(agent: &AgentText<'a>) -> Option<&'a str> {
    let without_version = ["fban/fbios", "fb_iab/fb4a"].iter().any(|text| {
        agent
            .ends_of(text)
            .any(|end| !agent.lower().get(end..).is_some_and(|rest| in_order_from(rest, "fbav")))
    });
    let with_version = agent.ends_of(";fbav/").any(|end| {
        let length = agent.run(end, is_version);
        length > 0 && agent.at(end + length) == b';'
    });
    found(without_version || with_version)
}

fn naver<'a>(agent: &AgentText<'a>) -> Option<&'a str> {
    found(agent.ends_of("naver(").any(|end| {
        let rest = agent.lower().get(end..).unwrap_or_default();
        rest.contains(')') && rest.bytes().any(|byte| byte.is_ascii_digit())
    }))
}

fn line<'a>(agent: &AgentText<'a>) -> Option<&'a str> {
    found(agent.ends_of("line/").any(|end| {
        let length = agent.run(end, is_version);
        agent.is_word_start(end - "line/".len())
            && length > 0
            && agent.lower().get(end + length..).is_some_and(|rest| rest.starts_with("/iab"))
    }))
}

fn google_app<'a>(agent: &AgentText<'a>) -> Option<&'a str> {
    found(agent.ends_of("gsa/").any(|end| {
        let length = agent.run(end, is_version);
        let rest = agent.lower().get(end + length..).unwrap_or_default();
        agent.is_word_start(end - "gsa/".len())
            && length > 0
            && rest.starts_with(' ')
            && rest.contains("safari/")
    }))
}

fn musically<'a>(agent: &AgentText<'a>) -> Option<&'a str> {
    let versioned = agent.ends_of("musical_ly_").any(|end| is_version(agent.at(end)));
    let elsewhere = ["app_version/", "appversion/"].iter().any(|text| in_order(agent, &["musical_ly", text]));
    found(versioned || elsewhere)
}

fn headless_chrome<'a>(agent: &AgentText<'a>) -> Option<&'a str> {
    found(
        agent
            .ends_of("headlesschrome")
            .any(|end| agent.at(end) == b' ' || (agent.at(end) == b'/' && is_version(agent.at(end + 1)))),
    )
}

fn web_view<'a>(agent: &AgentText<'a>) -> Option<&'a str> {
    let (_, rest) = agent.lower().split_once(" wv)")?;
    let from = agent.lower().len() - rest.len() + 1;
    found(agent.ends_of("chrome/").any(|end| end >= from + "chrome/".len() && is_version(agent.at(end))))
}

fn android_browser<'a>(agent: &AgentText<'a>) -> Option<&'a str> {
    let droid = agent.ends_of("droid").next()?;
    found(agent.ends_of(" version/").any(|end| {
        let length = agent.run(end, is_version);
        let rest = agent.lower().get(end + length..).unwrap_or_default();
        end > droid + " version/".len() && length > 0 && in_order_from(rest, "safari")
    }))
}

fn chrome<'a>(agent: &AgentText<'a>) -> Option<&'a str> {
    let versioned = |end: &usize| {
        is_version(agent.at(*end)) || (agent.at(*end) == b'v' && is_version(agent.at(*end + 1)))
    };
    let places = ["chrome", "omniweb", "arora"].iter().flat_map(|name| {
        let with_slash = agent.ends_of(name).filter(|end| agent.at(*end) == b'/');
        with_slash.filter(|end| versioned(&(*end + 1))).map(|end| (end - name.len(), end))
    });
    let phone_browsers = agent.ends_of("browser").filter_map(|end| {
        let name = end - "browser".len();
        let name = if name > 0 && agent.at(name - 1) == b' ' { name - 1 } else { name };
        let start = name.checked_sub(5)?;
        let is_name = agent.lower().get(start..name)?.bytes().all(|byte| b"tizenoka".contains(&byte));
        (is_name && agent.at(end) == b'/' && versioned(&(end + 1))).then_some((start, end))
    });
    let (start, end) = places.chain(phone_browsers).min()?;
    agent.text().get(start..end)
}

fn mobile_safari<'a>(agent: &AgentText<'a>) -> Option<&'a str> {
    let from = version_end(agent)?;
    found(agent.ends_of("mobile/").filter(|end| end - "mobile/".len() >= from).any(|end| {
        let length = agent.run(end, is_word);
        length > 0 && agent.lower().get(end + length..).is_some_and(|rest| rest.starts_with(" safari"))
    }))
}

fn safari_with_version<'a>(agent: &AgentText<'a>) -> Option<&'a str> {
    let from = version_end(agent)?;
    // Anything may stand before it, so the last and shortest text counts: never `Mobile Safari`.
    let end = agent.ends_of("safari").filter(|end| end - "safari".len() >= from).last()?;
    agent.text().get(end - "safari".len()..end)
}

/// Offset behind `version/<version> ` for the first place where it stands.
fn version_end(agent: &AgentText<'_>) -> Option<usize> {
    agent.ends_of("version/").find_map(|end| {
        let length = agent.run(end, |byte| is_version(byte) || matches!(byte, b',' | b'(' | b'|' | b')'));
        (length > 0 && agent.at(end + length) == b' ').then_some(end + length + 1)
    })
}

fn safari<'a>(agent: &AgentText<'a>) -> Option<&'a str> {
    let from = agent.ends_of("webkit").next()? + 1;
    let end = agent.ends_of("safari").find(|end| {
        end - "safari".len() >= from && agent.at(*end) == b'/' && is_version(agent.at(*end + 1))
    })?;
    let start = end - "safari".len();
    let mobile = ["mobile ", "mobile"].iter().find_map(|prefix| {
        let longer = start.checked_sub(prefix.len()).filter(|longer| *longer >= from)?;
        agent.lower().get(longer..start).filter(|text| text == prefix).map(|_| longer)
    });
    agent.text().get(mobile.unwrap_or(start)..end)
}

fn netscape<'a>(agent: &AgentText<'a>) -> Option<&'a str> {
    let named = |name: &str| {
        agent.ends_of(name).any(|end| {
            let digit = usize::from(name == "netscape" && agent.at(end).is_ascii_digit());
            agent.at(end + digit) == b'/' && is_version(agent.at(end + digit + 1))
        })
    };
    found(named("navigator") || named("netscape"))
}

fn firefox_reality<'a>(agent: &AgentText<'a>) -> Option<&'a str> {
    found(agent.ends_of("mobile vr; rv:").any(|end| {
        let length = agent.run(end, is_version);
        let rest = agent.lower().get(end + length..).unwrap_or_default();
        length > 0 && rest.strip_prefix(')').is_some_and(|rest| in_order_from(rest, "firefox"))
    }))
}

fn firefox<'a>(agent: &AgentText<'a>) -> Option<&'a str> {
    let end = agent.ends_of("firefox/").find(|end| is_version(agent.at(*end)))?;
    agent.text().get(end - "firefox/".len()..end - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_decides() {
        let webkit = "Mozilla/5.0 (X; Y) AppleWebKit/537.36 (KHTML, like Gecko)";
        let cases = [
            (format!("{webkit} Chrome/120.0 Safari/537.36"), ChromeStandard),
            (format!("{webkit} chrome/120.0 Safari/537.36"), Unsupported),
            (format!("{webkit} Chrome/120.0 Safari/537.36 OPR/105.0"), Unsupported),
            (format!("{webkit} Chrome/114.0 Electron/25.8.1 Safari/537.36"), ChromeStandard),
            (format!("{webkit} HeadlessChrome/119.0 Safari/537.36"), ChromeStandard),
            (format!("{webkit} Version/17.0 Mobile/15E148 Safari/604.1"), Safari),
            (format!("{webkit} Version/17.0 Safari/605.1.15"), Safari),
            (format!("{webkit} MobileSafari/605"), Unsupported),
            (format!("{webkit} CriOS/119.0 Mobile/15E148 Safari/604.1"), ChromeStandard),
            (format!("{webkit} FxiOS/120.0 Mobile/15E148 Safari/605.1.15"), Firefox),
            (webkit.to_owned(), Unsupported),
            ("Mozilla/5.0 (X11; rv:120.0) Gecko/20100101 Firefox/120.0".to_owned(), Firefox),
            ("Mozilla/5.0 (X11; rv:91.0) Gecko/20100101 Firefox/91.0 SeaMonkey/2.53".to_owned(), Unsupported),
            ("Mozilla/5.0 (X11; rv:91.0) SeaMonkey/2.53 Firefox/91.0".to_owned(), Firefox),
            (format!("{} Chrome/99", "a".repeat(492)), Unsupported),
            (format!("{} Chrome/99", " ".repeat(492)), ChromeStandard),
            (String::new(), Unsupported),
        ];
        for (agent, format) in cases {
            assert_eq!(stats_format(&agent), format, "{agent}");
        }
    }
}
