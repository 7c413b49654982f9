//! A Redis of a test's own, that it may restart, freeze and empty.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use super::eventually;

/// The Redis that all tests share: `dev/services.sh` starts it.
pub fn shared_url() -> String {
    std::env::var("TEST_REDIS_URL").expect("TEST_REDIS_URL is not set: run through `make test`")
}

/// A `redis-server` on a free port, without persistence. Killed when dropped.
pub struct OwnRedis {
    scheme: &'static str,
    port: u16,
    folder: tempfile::TempDir,
    process: Child,
}

impl OwnRedis {
    pub async fn start() -> Self {
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let process = spawn(port, &folder, &[]);
        let redis = Self { scheme: "redis", port, folder, process };
        redis.answers().await;
        redis
    }

    /// A cluster of one, which refuses scripts whose keys are not on one shard.
    pub async fn start_cluster() -> Self {
        let (port, bus, folder) = (free_port(), free_port(), tempfile::tempdir().unwrap());
        let bus = bus.to_string();
        let options = ["--cluster-enabled", "yes", "--cluster-port", &bus];
        let announced = ["--cluster-announce-ip", "127.0.0.1"];
        let process = spawn(port, &folder, &[options.as_slice(), &announced].concat());
        let redis = Self { scheme: "redis-cluster", port, folder, process };
        redis.answers().await;
        redis.cli(&["cluster", "addslotsrange", "0", "16383"]);
        eventually("the cluster takes commands", || async {
            redis.cli(&["cluster", "info"]).contains("cluster_state:ok").then_some(())
        })
        .await;
        redis
    }

    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    /// Kills it and starts it again, empty.
    pub async fn restart(&mut self) {
        self.stop();
        self.start_again().await;
    }

    /// Kills it.
    pub fn stop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it after [`OwnRedis::stop`], empty.
    pub async fn start_again(&mut self) {
        self.process = spawn(self.port, &self.folder, &[]);
        self.answers().await;
    }

    /// Runs a command with `redis-cli`.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let port = self.port.to_string();
        let output =
            Command::new("redis-cli").args(["-p", &port]).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    async fn answers(&self) {
        eventually("Redis answers", || async { (self.cli(&["ping"]) == "PONG").then_some(()) })
            .await;
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn spawn(port: u16, folder: &tempfile::TempDir, options: &[&str]) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
        .arg(folder.path())
        .args(options)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed: run through `make test`")
}
