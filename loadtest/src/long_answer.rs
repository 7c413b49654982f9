//! What a long answer costs: bytes to Redis, database transactions and CPU, by its length.
//!
//! Two nodes, and one session with a socket on each. The scripted provider answers as fast as it is
//! taken, one answer after the other; lengths that are compared have as many tokens in total. What
//! the nodes do anyway (heartbeats, looking for what to do) is measured before and taken off.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Command as Program, ExitCode};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{ArgMatches, Command};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Packet, Socket, joined_pair, packet, payload};
use crate::database::{Database, without_limits};
use crate::nodes::{Nodes, address_of};
use crate::options;
use crate::process::{Machine, Process};
use crate::stats::rounded;

/// The subcommand's name.
pub const NAME: &str = "long";

/// The lengths that are compared.
const LENGTHS: [u32; 3] = [1_000, 8_000, 32_000];
/// PostgreSQL's backends say within so much what they did, idle ones too.
const TOLD_WITHIN: Duration = Duration::from_secs(12);
/// How long the nodes are watched doing nothing.
const IDLE: Duration = Duration::from_secs(20);
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// The subcommand and its options.
pub fn command() -> Command {
    let help = "of each length, in all; at least 32000";
    Command::new(NAME)
        .about("What answers of 1,000, 8,000 and 32,000 tokens cost")
        .arg(options::number("tokens", "320000", 32_000, help))
        .arg(options::bin())
        .arg(options::out())
        .after_help("TEST_REDIS_URL and TEST_DATABASE_URL say what the nodes use.")
}

/// What answers of one length cost, each.
#[derive(Debug, Serialize)]
struct Figures {
    tokens: u32,
    answers: u32,
    seconds: f64,
    redis_bytes: f64,
    transactions: f64,
    cpu_us_per_token: BTreeMap<String, f64>,
    others_cores: f64,
    /// Answers whose readers did not end with one text of so many tokens.
    wrong: u32,
}

impl Figures {
    fn print(&self) {
        let Self { tokens, answers, seconds, redis_bytes, transactions, .. } = self;
        println!("{tokens} tokens, {answers} answers, {seconds:.2} s each");
        println!("  to Redis       {:.3} MB", redis_bytes / 1e6);
        println!("  transactions   {transactions:.1}");
        for (process, micros) in &self.cpu_us_per_token {
            println!("  {process:<14} {micros:8.2} µs CPU a token");
        }
        println!("  others         {:.2} cores   wrong {}", self.others_cores, self.wrong);
    }
}

/// What is counted, at a moment.
struct Counted {
    at: Instant,
    redis_bytes: f64,
    transactions: f64,
}

impl Counted {
    async fn now(redis: SocketAddr, database: &str) -> anyhow::Result<Self> {
        let redis_bytes = redis_input(redis).await?;
        let transactions = transactions(database)?;
        Ok(Self { at: Instant::now(), redis_bytes, transactions })
    }

    /// How much of both there was since `before`.
    fn since(&self, before: &Self) -> (f64, f64, f64) {
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        let (bytes, transactions) = (self.redis_bytes, self.transactions);
        (seconds, bytes - before.redis_bytes, transactions - before.transactions)
    }
}

/// Measures each length. The exit code says whether every answer was whole.
///
/// # Errors
/// What kept it from measuring.
pub async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let bin = options::bin_of(matches)?;
    let total = options::number_of(matches, "tokens");
    let redis =
        std::env::var("TEST_REDIS_URL").context("TEST_REDIS_URL: run this by dev/services.sh")?;
    let database = Database::Postgres.url()?;
    let secret = "a secret of nothing but load tests";
    let agents = LENGTHS.map(|tokens| {
        format!(
            "[[agent]]\nid = \"of-{tokens}\"\nprovider = \"scripted\"\ntokens = {tokens}\n\
             tokens_per_second = 0\n"
        )
    });
    let mut nodes = Nodes::new(&agents.concat())?;
    let mut settings = BTreeMap::from([
        ("REDIS_URL", redis.clone()),
        ("DATABASE_URL", database.clone()),
        ("JWT_SECRET", secret.to_owned()),
        ("SHUTDOWN_GRACE", "1s".to_owned()),
    ]);
    settings.extend(without_limits());
    settings.insert("RATE_LIMITS", "session:join=0,stream:request=0".to_owned());
    let a = nodes.start("node-a", &bin, &settings)?;
    nodes.ready().await?; // alone, since it brings the database to its schema
    let b = nodes.start("node-b", &bin, &settings)?;
    nodes.ready().await?;
    let all = measure([a, b], address_of(&redis)?, &database, secret, total).await;
    nodes.stop().await;
    let all = all?;
    options::write_out(matches, &all)?;
    let whole = all.iter().all(|figures| figures.wrong == 0);
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn measure(
    nodes: [SocketAddr; 2],
    redis: SocketAddr,
    database: &str,
    secret: &str,
    total: u32,
) -> anyhow::Result<Vec<Figures>> {
    let processes = [
        Process::listening_on("node-a", nodes[0].port())?,
        Process::listening_on("node-b", nodes[1].port())?,
        Process::listening_on("redis", redis.port())?,
        Process::listening_on("postgres", address_of(database)?.port())?,
    ];
    let started = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    let session = format!("long-{started}");
    let mut pair = joined_pair(secret, nodes, &session).await?;
    println!("{} cores; watching the nodes do nothing for {} s", Machine::cores(), IDLE.as_secs());
    sleep(TOLD_WITHIN).await;
    let before = Counted::now(redis, database).await?;
    sleep(IDLE).await;
    let (seconds, bytes, transactions) = Counted::now(redis, database).await?.since(&before);
    let idle = (bytes / seconds, transactions / seconds);
    println!("  idle           {:.0} bytes/s to Redis, {:.1} transactions/s", idle.0, idle.1);

    let mut all = Vec::new();
    for tokens in LENGTHS {
        ask(&mut pair, &session, tokens, "warm-up").await?;
        sleep(TOLD_WITHIN).await;
        let answers = (total / tokens).max(1);
        let before = Counted::now(redis, database).await?;
        let (machine, cpu) = (Machine::now()?, cpu_of(&processes)?);
        let begin = Instant::now();
        let mut wrong = 0;
        for n in 0..answers {
            let is_whole = ask(&mut pair, &session, tokens, &format!("number {n}")).await?;
            wrong += u32::from(!is_whole);
        }
        let took = begin.elapsed().as_secs_f64();
        let (machine_after, cpu_after) = (Machine::now()?, cpu_of(&processes)?);
        sleep(TOLD_WITHIN).await;
        let (seconds, bytes, transactions) = Counted::now(redis, database).await?.since(&before);
        let each = |sum: f64, idle: f64| rounded((sum - idle * seconds) / f64::from(answers));
        let used: Vec<f64> = cpu_after.iter().zip(&cpu).map(|(after, cpu)| after - cpu).collect();
        let per_token = |used: &f64| rounded(used * 1e6 / f64::from(answers * tokens));
        let names = processes.iter().map(|process| process.name.clone());
        let busy = machine_after.busy - machine.busy - used.iter().sum::<f64>();
        let figures = Figures {
            tokens,
            answers,
            seconds: rounded(took / f64::from(answers)),
            redis_bytes: each(bytes, idle.0),
            transactions: each(transactions, idle.1),
            cpu_us_per_token: names.zip(used.iter().map(per_token)).collect(),
            others_cores: rounded((busy / took).max(0.0)),
            wrong,
        };
        figures.print();
        all.push(figures);
    }
    Ok(all)
}

fn cpu_of(processes: &[Process]) -> anyhow::Result<Vec<f64>> {
    processes.iter().map(Process::cpu_seconds).collect()
}

/// One answer, heard by both sockets. Whether both ended with one text of so many tokens.
async fn ask(
    [a, b]: &mut [Socket; 2],
    session: &str,
    tokens: u32,
    prompt: &str,
) -> anyhow::Result<bool> {
    let payload =
        json!({ "sessionId": session, "prompt": prompt, "agentId": format!("of-{tokens}") });
    a.emit("stream:request", &payload).await?;
    let both = async { tokio::try_join!(ended(a), ended(b)) };
    let (own, other) = timeout(PATIENCE, both).await.context("an answer's end")??;
    let is_whole = own["usage"]["outputTokens"] == tokens;
    Ok(is_whole && own["message"]["content"] == other["message"]["content"])
}

/// What `stream:complete` says.
async fn ended(socket: &mut Socket) -> anyhow::Result<Value> {
    loop {
        let text = socket.receive().await?;
        let Packet::Event(event) = packet(&text) else { continue };
        // Chunks are not looked into: this process shares the machine with those it measures.
        if event.starts_with("[\"stream:complete\"") {
            let (_, said) = payload::<Value>(event).context("read stream:complete")?;
            return Ok(said);
        }
        if event.starts_with("[\"stream:error\"") {
            bail!("the answer failed: {event}");
        }
    }
}

/// How many bytes Redis has read from its clients.
async fn redis_input(address: SocketAddr) -> anyhow::Result<f64> {
    let mut stream = TcpStream::connect(address).await.context("connect to Redis")?;
    stream.write_all(b"INFO stats\r\n").await.context("ask Redis")?;
    let mut answer = Vec::new();
    let mut part = [0; 8 * 1024];
    let find = |answer: &[u8]| -> Option<f64> {
        let text = String::from_utf8_lossy(answer);
        let (_, rest) = text.split_once("total_net_input_bytes:")?;
        rest.split_once("\r\n")?.0.parse().ok()
    };
    loop {
        if let Some(bytes) = find(&answer) {
            return Ok(bytes);
        }
        let read = timeout(Duration::from_secs(5), stream.read(&mut part)).await;
        match read.context("Redis does not answer")?.context("ask Redis")? {
            0 => bail!("Redis does not say what it read"),
            read => answer.extend_from_slice(&part[..read]),
        }
    }
}

/// How many transactions the database has committed, as far as it was told.
fn transactions(database: &str) -> anyhow::Result<f64> {
    let sql = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
    let said = Program::new("psql")
        .args(["--no-psqlrc", "--tuples-only", "--no-align", "--command", sql, database])
        .output()
        .context("run psql")?;
    String::from_utf8_lossy(&said.stdout).trim().parse().context("read what psql says")
}
