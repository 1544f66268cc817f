//! Names that [`super::platform`] looks for. Order matters: the first one that is there wins.
//!
//! A space or `-` inside a name may be missing in the user agent. Rules: browser detection 3.1, 3.3.

/// A name to look for and what it is called in the result.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named {
    pub(super) patterns: &'static [&'static str],
    pub(super) label: &'static str,
}

/// Names that are called what they look like, and others with their patterns.
macro_rules! names {
    ($($label:literal $(= [$($pattern:literal),+])?,)+) => {
        &[$(Named { patterns: names!(@ $label $([$($pattern),+])?), label: $label },)+]
    };
    (@ $label:literal) => { &[$label] };
    (@ $label:literal [$($pattern:literal),+]) => { &[$($pattern),+] };
}

/// Browsers.
pub(super) static BROWSERS: &[Named] = names![
    "Adobe AIR",
    "Arora",
    "Avant Browser",
    "Breach",
    "Camino",
    "Electron",
    "Epiphany",
    "Fennec",
    "Flock",
    "Galeon",
    "GreenBrowser",
    "iCab",
    "Iceweasel",
    "K-Meleon",
    "Konqueror",
    "Lunascape",
    "Maxthon",
    "Microsoft Edge" = ["Edge", "Edg", "EdgA", "EdgiOS"],
    "Midori",
    "Nook Browser",
    "PaleMoon",
    "PhantomJS",
    "Raven",
    "Rekonq",
    "RockMelt",
    "Samsung Internet" = ["SamsungBrowser"],
    "SeaMonkey",
    "Silk" = ["Cloud9", "Silk-Accelerated"],
    "Sleipnir",
    "SlimBrowser",
    "SRWare Iron" = ["Iron"],
    "Sunrise",
    "Swiftfox",
    "Vivaldi",
    "Waterfox",
    "WebPositive",
    "Yandex Browser" = ["YaBrowser"],
    "UC Browser" = ["UCBrowser"],
    "Opera Mini" = ["Opera Mini"],
    "Opera Mini" = ["OPiOS"],
    "Opera",
    "Opera" = ["OPR"],
    "Chromium",
    "Chrome",
    "Chrome" = ["HeadlessChrome"],
    "Chrome Mobile" = ["CriOS", "CrMo"],
    "Firefox" = ["Firefox", "Minefield"],
    "Firefox for iOS" = ["FxiOS"],
    "IE" = ["IEMobile"],
    "IE" = ["MSIE"],
    "Safari",
];

/// Devices.
pub(super) static PRODUCTS: &[Named] = names![
    "BlackBerry" = ["BB10"],
    "BlackBerry",
    "Galaxy S" = ["GT-I9000"],
    "Galaxy S2" = ["GT-I9100"],
    "Galaxy S3" = ["GT-I9300"],
    "Galaxy S4" = ["GT-I9500"],
    "Galaxy S5" = ["SM-G900"],
    "Galaxy S6" = ["SM-G920"],
    "Galaxy S6 Edge" = ["SM-G925"],
    "Galaxy S7" = ["SM-G930"],
    "Galaxy S7 Edge" = ["SM-G935"],
    "Google TV",
    "Lumia",
    "iPad",
    "iPod",
    "iPhone",
    "Kindle",
    "Kindle Fire" = ["Cloud9", "Silk-Accelerated"],
    "Nexus",
    "Nook",
    "PlayBook",
    "PlayStation Vita",
    "PlayStation",
    "TouchPad",
    "Transformer",
    "Wii U" = ["WiiU"],
    "Wii",
    "Xbox One",
    "Xbox 360" = ["Xbox"],
    "Xoom",
];

/// Manufacturers, and the devices that each is known by.
pub(super) static MANUFACTURERS: &[(&str, &[&str])] = &[
    ("Apple", &["iPad", "iPhone", "iPod"]),
    ("Alcatel", &[]),
    ("Archos", &[]),
    ("Amazon", &["Kindle", "Kindle Fire"]),
    ("Asus", &["Transformer"]),
    ("Barnes & Noble", &["Nook"]),
    ("BlackBerry", &["PlayBook"]),
    ("Google", &["Google TV", "Nexus"]),
    ("HP", &["TouchPad"]),
    ("HTC", &[]),
    ("Huawei", &[]),
    ("Lenovo", &[]),
    ("LG", &[]),
    ("Microsoft", &["Xbox 360", "Xbox One"]),
    ("Motorola", &["Xoom"]),
    ("Nintendo", &["Wii U", "Wii"]),
    ("Nokia", &["Lumia"]),
    ("Oppo", &[]),
    ("Samsung", &["Galaxy S", "Galaxy S2", "Galaxy S3", "Galaxy S4"]),
    ("Sony", &["PlayStation", "PlayStation Vita"]),
    ("Xiaomi", &["Mi", "Redmi"]),
];

/// Operating systems.
pub(super) static SYSTEMS: &[Named] = names![
    "Windows Phone",
    "KaiOS",
    "Android",
    "CentOS",
    "Chrome OS" = ["CrOS"],
    "Debian",
    "DragonFly BSD" = ["DragonFly"],
    "Fedora",
    "FreeBSD",
    "Gentoo",
    "Haiku",
    "Kubuntu",
    "Linux Mint",
    "OpenBSD",
    "Red Hat",
    "SuSE",
    "Ubuntu",
    "Xubuntu",
    "Cygwin",
    "Symbian OS",
    "hpwOS",
    "webOS ",
    "webOS",
    "Tablet OS",
    "Tizen",
    "Linux",
    "Mac OS X",
    "Macintosh",
    "Mac",
    "Windows 98;",
    "Windows ",
];

/// Version numbers of Windows and what they are called.
pub(super) static WINDOWS: &[(&str, &str)] = &[
    ("10.0", "10"),
    ("6.4", "10 Technical Preview"),
    ("6.3", "8.1"),
    ("6.2", "8"),
    ("6.1", "Server 2008 R2 / 7"),
    ("6.0", "Server 2008 / Vista"),
    ("5.2", "Server 2003 / XP 64-bit"),
    ("5.1", "XP"),
    ("5.01", "2000 SP1"),
    ("5.0", "2000"),
    ("4.0", "NT"),
    ("4.90", "ME"),
];

/// What stands before the version of browsers that also name another one.
pub(super) static VERSION_PREFIXES: &[&str] = &[
    "Cloud9",
    "CriOS",
    "CrMo",
    "Edge",
    "Edg",
    "EdgA",
    "EdgiOS",
    "FxiOS",
    "HeadlessChrome",
    "IEMobile",
    "Iron",
    "Opera Mini",
    "OPiOS",
    "OPR",
    "Raven",
    "SamsungBrowser",
    "Silk",
    "UCBrowser",
    "YaBrowser",
];

/// Where a browser's version is looked for last.
pub(super) static LAST_VERSION_PREFIXES: &[&str] = &["Firefox", "Minefield", "NetFront"];

/// Layout engines.
pub(super) static LAYOUTS: &[Named] = names![
    "EdgeHTML" = ["Edge"],
    "Trident",
    "WebKit" = ["AppleWebKit"],
    "iCab",
    "Presto",
    "NetFront",
    "Tasman",
    "KHTML",
    "Gecko",
];

/// Versions of Safari by the number of its engine: the first that the engine is below.
pub(super) static SAFARI_VERSIONS: &[(f64, &str)] = &[
    (400.0, "1.x"),
    (500.0, "2.x"),
    (526.0, "3.x"),
    (533.0, "4.x"),
    (534.0, "4+"),
    (535.0, "5.x"),
    (537.0, "6.x"),
    (538.0, "7.x"),
    (601.0, "8.x"),
    (602.0, "9.x"),
    (604.0, "10.x"),
    (606.0, "11.x"),
    (608.0, "12.x"),
    (f64::INFINITY, "12+"),
];
