//! Whether a session's length slows it down: sending, reading a page and searching in a session of
//! very many messages beside one of few, in turn, on the same node.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{ArgMatches, Command};
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use crate::client::{Packet, Socket, granted, packet};
use crate::database::{Database, without_limits};
use crate::http::Connection;
use crate::nodes::Nodes;
use crate::options;
use crate::process::Machine;
use crate::stats::Spread;
use crate::token::token;

/// The subcommand's name.
pub const NAME: &str = "long-session";

/// How many messages are under way while a session is filled.
const AT_ONCE: u32 = 48;
/// How many of each session's messages hold the word that is looked for.
const HITS: u32 = 10;

/// The subcommand and its options.
pub fn command() -> Command {
    let option = |name, default, help| options::number(name, default, 100, help);
    Command::new(NAME)
        .about(
            "What sending, reading a page and searching cost in a long session and in a short one",
        )
        .arg(option("short", "100", "messages of the short session"))
        .arg(option("long", "100000", "messages of the long session"))
        .arg(option("rounds", "500", "how often each is measured"))
        .arg(Database::option())
        .arg(options::bin())
        .arg(options::out())
        .after_help("TEST_DATABASE_URL says what the node uses, where it is PostgreSQL.")
}

/// What one thing cost in both sessions.
#[derive(Debug, Serialize)]
struct Pair {
    what: &'static str,
    short_ms: Spread,
    long_ms: Spread,
}

#[derive(Debug, Serialize)]
struct Figures {
    database: Database,
    short: u32,
    long: u32,
    rounds: u32,
    pairs: Vec<Pair>,
}

impl Figures {
    fn print(&self) {
        println!(
            "{}: sessions of {} and {} messages, {} times each in turn, {} cores",
            self.database.name(),
            self.short,
            self.long,
            self.rounds,
            Machine::cores(),
        );
        for Pair { what, short_ms, long_ms } in &self.pairs {
            println!(
                "  {what:<16} short p50 {:.2} p99 {:.2}   long p50 {:.2} p99 {:.2} ms   × {:.2}",
                short_ms.p50,
                short_ms.p99,
                long_ms.p50,
                long_ms.p99,
                long_ms.p50 / short_ms.p50.max(0.001),
            );
        }
    }
}

/// Measures on each database.
///
/// # Errors
/// What kept it from measuring, an answer that is not what it has to be included.
pub async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let number = |name| options::number_of(matches, name);
    let bin = options::bin_of(matches)?;
    let mut all = Vec::new();
    for database in Database::chosen(matches) {
        let secret = "a secret of nothing but load tests";
        let mut nodes = Nodes::new("[[agent]]\nid = \"bench\"\nprovider = \"scripted\"\n")?;
        let mut settings = BTreeMap::from([
            ("DATABASE_URL", database.url()?),
            ("JWT_SECRET", secret.to_owned()),
            ("SHUTDOWN_GRACE", "1s".to_owned()),
        ]);
        settings.extend(without_limits());
        let node = nodes.start("node", &bin, &settings)?;
        nodes.ready().await?;
        let measured = measure(
            database,
            node,
            &token(secret, "bench"),
            [number("short"), number("long")],
            number("rounds"),
        )
        .await;
        nodes.stop().await;
        let figures = measured?;
        figures.print();
        all.push(figures);
    }
    options::write_out(matches, &all)?;
    Ok(ExitCode::SUCCESS)
}

async fn measure(
    database: Database,
    node: SocketAddr,
    token: &str,
    lengths: [u32; 2],
    rounds: u32,
) -> anyhow::Result<Figures> {
    let started = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    let names = [format!("short-{started}"), format!("long-{started}")];
    let mut socket = Socket::connect(node, token).await?;
    for (name, length) in names.iter().zip(lengths) {
        let begun = Instant::now();
        fill(&mut socket, name, length).await.with_context(|| format!("fill {name}"))?;
        println!("  {length} messages sent in {:.1} s", begun.elapsed().as_secs_f64());
    }
    let mut http = Connection::open(node, token).await?;
    let mut times: [[Vec<f64>; 5]; 2] = Default::default();
    for round in 0..rounds {
        for (which, name) in names.iter().enumerate() {
            let middle = lengths[which] / 2;
            let base = format!("/api/chat/sessions/{name}");
            let asked = [
                format!("{base}/messages"),
                format!("{base}/messages?offset={middle}"),
                format!("{base}/search?query=needle"),
                format!("{base}/search?query=absent"),
            ];
            let begun = Instant::now();
            let payload = json!({ "sessionId": name, "content": format!("Measured {round}") });
            socket.call("message:send", &payload).await?;
            times[which][0].push(begun.elapsed().as_secs_f64() * 1e3);
            for (number, path) in asked.iter().enumerate() {
                let begun = Instant::now();
                let answer = http.get(path).await?;
                times[which][number + 1].push(begun.elapsed().as_secs_f64() * 1e3);
                let found = answer["messages"].as_array().map_or(0, Vec::len);
                let wanted = [50, 50, HITS as usize, 0][number];
                if found != wanted {
                    bail!("{path}: {found} messages instead of {wanted}");
                }
            }
        }
    }
    let [short, long] = times;
    let what = ["send", "newest page", "page in the middle", "search, 10 hits", "search, none"];
    let pairs = what.into_iter().zip(short.into_iter().zip(long)).map(|(what, (short, long))| {
        Pair { what, short_ms: Spread::of(short), long_ms: Spread::of(long) }
    });
    Ok(Figures { database, short: lengths[0], long: lengths[1], rounds, pairs: pairs.collect() })
}

/// Sends `length` messages, some at once; [`HITS`] of them hold the word that is looked for.
async fn fill(socket: &mut Socket, session: &str, length: u32) -> anyhow::Result<()> {
    let hit_every = length / HITS;
    let (mut sent, mut acknowledged) = (0, 0);
    while acknowledged < length {
        while sent < length && sent - acknowledged < AT_ONCE {
            let hit = if sent % hit_every == 0 { "needle" } else { "straw" };
            let content =
                format!("Message {sent} of a session that grows long, with a {hit} in it.");
            socket
                .emit("message:send", &json!({ "sessionId": session, "content": content }))
                .await?;
            sent += 1;
        }
        if let Packet::Ack(ack) = packet(&socket.receive().await?) {
            granted(ack)?;
            acknowledged += 1;
        }
    }
    Ok(())
}
