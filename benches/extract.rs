//! MB of dump per CPU second.
use rtcstats_server::extract::{self, ExtractLimits, Options};
use std::io::Read;
use std::path::Path;
fn cpu() -> f64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
}
fn main() {
    ua();
    let dir = Path::new("/work/shared/conformance/dumps");
    let only = std::env::args().nth(1).filter(|a| !a.starts_with("--"));
    for (name, target) in [
        ("google-standard-stats-sfu", 450.),
        ("google-standard-stats-p2p", 580.),
        ("chrome-standard-multiple-p2p", 510.),
        ("safari-standard-stats", 474.),
        ("jvb-sample.gz", 954.),
        ("firefox97-standard-stats-sfu", 0.),
        ("google-legacy-screenshare-p2p-served", 0.),
    ] {
        if only.as_ref().is_some_and(|o| !name.contains(o.as_str())) {
            continue;
        }
        let mut b = std::fs::read(dir.join(name)).unwrap();
        if name.ends_with(".gz") {
            let mut o = Vec::new();
            flate2::read::GzDecoder::new(&*b).read_to_end(&mut o).unwrap();
            b = o;
        }
        let options = Options {
            strict: true,
            client_id: "x".into(),
            dump_path: "x".into(),
            now_ms: 1.,
            limits: ExtractLimits::default(),
        };
        let mut best = 0f64;
        for _ in 0..10 {
            let n = (30_000_000 / b.len()).max(1);
            let t = cpu();
            for _ in 0..n {
                std::hint::black_box(extract::extract(&*b, &options).unwrap());
            }
            let dt = cpu() - t;
            best = best.max(b.len() as f64 * n as f64 / dt / 1e6);
        }
        println!("{name:40} {best:8.0} MB/s target {target}");
    }
}
#[allow(dead_code)]
pub fn ua() {
    use rtcstats_server::extract::user_agent::{BrowserInfo, StatsFormat};
    let agent = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/99.0.4844.51 Safari/537.36";
    let t = cpu();
    for _ in 0..10000 {
        std::hint::black_box(StatsFormat::of(std::hint::black_box(agent)));
    }
    let t2 = cpu();
    for _ in 0..10000 {
        std::hint::black_box(BrowserInfo::of(std::hint::black_box(agent)));
    }
    println!("format {:.2} us, info {:.2} us", (t2 - t) * 100., (cpu() - t2) * 100.);
}
