//! How much later the first words of an answer are seen through a node than by who reads the
//! model's server directly.
//!
//! The model's server is here, and is asked twice for each answer: by node A and by a reader of this
//! process. Once both are connected both are told the first token, in turn who is first. Both, and
//! the sockets, are read in this process: one clock.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{ArgMatches, Command};
use serde::Serialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Packet, Socket, joined_pair, packet};
use crate::database::{Database, without_limits};
use crate::nodes::Nodes;
use crate::options;
use crate::process::Machine;
use crate::stats::{Spread, rounded};

/// The subcommand's name.
pub const NAME: &str = "first-token";

/// How long both are connected before they are told something.
const SETTLE: Duration = Duration::from_millis(30);
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// What names an answer in its prompt.
const MARK: &str = "first-token-";
const TOKEN: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Once\"}}]}\n\n";
const REST: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
     data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\n\
     data: [DONE]\n\n";
const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

/// The subcommand and its options.
pub fn command() -> Command {
    let option = |name, default, help| options::number(name, default, 1, help);
    Command::new(NAME)
        .about("How much later the first token is seen than by a direct reader of the model")
        .arg(option("sessions", "10", "at once, two sockets each"))
        .arg(option("answers", "200", "of each session, one after the other"))
        .arg(Database::option())
        .arg(options::bin())
        .arg(options::out())
        .after_help("TEST_REDIS_URL and TEST_DATABASE_URL say what the nodes use.")
}

#[derive(Debug, Serialize)]
struct Figures {
    database: Database,
    answers: usize,
    /// Of the socket on the node that asks the model.
    own_ms: Spread,
    /// Of the socket on the other node.
    other_ms: Spread,
    /// Of the whole machine, this process included.
    busy_cores: f64,
}

impl Figures {
    fn print(&self) {
        println!(
            "{}: {} answers, {:.2} of {} cores busy",
            self.database.name(),
            self.answers,
            self.busy_cores,
            Machine::cores(),
        );
        for (name, spread) in [("own node", self.own_ms), ("other node", self.other_ms)] {
            let Spread { p50, p90, p99, p999, max } = spread;
            println!(
                "  {name:<11} later by  p50 {p50:.2}  p90 {p90:.2}  p99 {p99:.2}  p99.9 {p999:.2}  max {max:.2} ms"
            );
        }
    }
}

/// Measures on each database.
///
/// # Errors
/// What kept it from measuring, an answer without an end included.
pub async fn run(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let bin = options::bin_of(matches)?;
    let (sessions, answers) =
        (options::number_of(matches, "sessions"), options::number_of(matches, "answers"));
    let redis =
        std::env::var("TEST_REDIS_URL").context("TEST_REDIS_URL: run this by dev/services.sh")?;
    let secret = "a secret of nothing but load tests";
    let mut all = Vec::new();
    for database in Database::chosen(matches) {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen")?;
        let model = listener.local_addr().context("listen")?;
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener));
        let agent = format!(
            "[[agent]]\nid = \"bench\"\nprovider = \"openai\"\nmodel = \"bench\"\n\
             base_url = \"http://{model}/v1\"\n"
        );
        let mut nodes = Nodes::new(&agent)?;
        let mut settings = BTreeMap::from([
            ("REDIS_URL", redis.clone()),
            ("DATABASE_URL", database.url()?),
            ("JWT_SECRET", secret.to_owned()),
            ("SHUTDOWN_GRACE", "1s".to_owned()),
            ("CONTEXT_MESSAGES", "1".to_owned()),
        ]);
        settings.extend(without_limits());
        settings.insert("RATE_LIMITS", "session:join=0,stream:request=0".to_owned());
        let a = nodes.start("node-a", &bin, &settings)?;
        nodes.ready().await?; // alone, since it brings the database to its schema
        let b = nodes.start("node-b", &bin, &settings)?;
        nodes.ready().await?;
        let measured = measure([a, b], model, secret, sessions, answers).await;
        nodes.stop().await;
        let (own, other, busy_cores) = measured?;
        let answers = own.len();
        let (own_ms, other_ms) = (Spread::of(own), Spread::of(other));
        let figures = Figures { database, answers, own_ms, other_ms, busy_cores };
        figures.print();
        all.push(figures);
    }
    options::write_out(matches, &all)?;
    Ok(ExitCode::SUCCESS)
}

async fn measure(
    nodes: [SocketAddr; 2],
    model: SocketAddr,
    secret: &str,
    sessions: u32,
    answers: u32,
) -> anyhow::Result<(Vec<f64>, Vec<f64>, f64)> {
    let started = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    let mut tasks = JoinSet::new();
    let (machine, begin) = (Machine::now()?, Instant::now());
    for session in 0..sessions {
        let name = format!("first-{started}-{session}");
        let mut pair = joined_pair(secret, nodes, &name).await?;
        tasks.spawn(async move {
            let mut waits = Vec::new();
            for n in 0..answers {
                let mark = format!("{MARK}{session}.{n};");
                let round = timeout(PATIENCE, answer(&mut pair, &name, model, &mark));
                waits.push(round.await.with_context(|| format!("{mark} has no end"))??);
            }
            anyhow::Ok(waits)
        });
    }
    let (mut own, mut other) = (Vec::new(), Vec::new());
    while let Some(ended) = tasks.join_next().await {
        for (on_a, on_b) in ended.context("a session's task")?? {
            own.push(on_a);
            other.push(on_b);
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let busy = (Machine::now()?.busy - machine.busy) / seconds;
    Ok((own, other, rounded(busy)))
}

/// How much later the first token of one answer was on A and on B, in milliseconds.
async fn answer(
    [a, b]: &mut [Socket; 2],
    session: &str,
    model: SocketAddr,
    mark: &str,
) -> anyhow::Result<(f64, f64)> {
    a.emit("stream:request", &json!({ "sessionId": session, "prompt": mark })).await?;
    let (direct, on_a, on_b) = tokio::try_join!(read_directly(model, mark), heard(a), heard(b))?;
    let later = |at: Instant| {
        let sign = if at < direct { -1.0 } else { 1.0 };
        sign * (at.max(direct) - at.min(direct)).as_secs_f64() * 1e3
    };
    Ok((later(on_a), later(on_b)))
}

/// When the first chunk with text came; reads on to the end of the answer.
async fn heard(socket: &mut Socket) -> anyhow::Result<Instant> {
    let mut first = None;
    loop {
        let text = socket.receive().await?;
        let at = Instant::now();
        let Packet::Event(event) = packet(&text) else { continue };
        if event.starts_with("[\"stream:chunk\"") {
            first.get_or_insert(at);
        } else if event.starts_with("[\"stream:complete\"") {
            return first.context("an answer without a chunk");
        } else if event.starts_with("[\"stream:error\"") {
            bail!("the answer failed: {event}");
        }
    }
}

/// Asks the model's server as a node does: when the first token came.
async fn read_directly(model: SocketAddr, mark: &str) -> anyhow::Result<Instant> {
    let mut stream = TcpStream::connect(model).await.context("connect to the model")?;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {model}\r\ncontent-length: {}\r\n\r\n{mark}",
        mark.len()
    );
    stream.write_all(request.as_bytes()).await.context("ask the model")?;
    let mut read = Vec::new();
    let mut part = [0; 4 * 1024];
    loop {
        let count = stream.read(&mut part).await.context("read the model")?;
        let at = Instant::now();
        if count == 0 {
            bail!("the model said nothing");
        }
        read.extend_from_slice(&part[..count]);
        if read.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes()) {
            return Ok(at);
        }
    }
}

/// Who was asked once and waits for the other.
type Waiting = Arc<Mutex<HashMap<String, TcpStream>>>;

/// The model's server. Each answer is asked for twice.
async fn serve(listener: TcpListener) {
    let waiting = Waiting::default();
    let mut tasks = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        // Without it the kernel could keep a token back.
        let _ = stream.set_nodelay(true);
        tasks.spawn(serve_one(stream, waiting.clone()));
        while tasks.try_join_next().is_some() {}
    }
}

async fn serve_one(mut stream: TcpStream, waiting: Waiting) -> anyhow::Result<()> {
    let mark = asked(&mut stream).await?;
    stream.write_all(HEAD.as_bytes()).await?;
    let found = waiting.lock().expect("nobody panics with it").remove(&mark);
    let Some(first) = found else {
        waiting.lock().expect("nobody panics with it").insert(mark, stream);
        return Ok(());
    };
    sleep(SETTLE).await;
    let is_odd = mark.bytes().rev().nth(1).is_some_and(|digit| digit % 2 == 1);
    let mut pair = if is_odd { [stream, first] } else { [first, stream] };
    for stream in &mut pair {
        stream.write_all(TOKEN.as_bytes()).await?;
    }
    for stream in &mut pair {
        stream.write_all(REST.as_bytes()).await?;
        stream.shutdown().await?;
    }
    Ok(())
}

/// Reads a request to its end: which answer it is about.
async fn asked(stream: &mut TcpStream) -> anyhow::Result<String> {
    let mut read = Vec::new();
    let mut part = [0; 8 * 1024];
    loop {
        let count = stream.read(&mut part).await.context("read a request")?;
        if count == 0 {
            bail!("a request without an end");
        }
        read.extend_from_slice(&part[..count]);
        let text = String::from_utf8_lossy(&read);
        // The newest prompt is the last.
        if let Some((_, rest)) = text.rsplit_once(MARK)
            && let Some((mark, _)) = rest.split_once(';')
            && has_whole_body(&text)
        {
            return Ok(format!("{mark};"));
        }
    }
}

fn has_whole_body(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") { value.trim().parse().ok() } else { None }
    });
    length.is_some_and(|length: usize| body.len() >= length)
}
