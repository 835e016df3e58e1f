//! Holds the connection to Redis, tells it that this instance is alive and what
//! places it holds, and logs when Redis goes and comes. No client waits for
//! anything that happens here.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisError};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    ADMIT, BAN, LIFT, PUBLISH, RedisUrl, Shared, Trouble, count_key, instance_name, millis, random,
};
use crate::settings::clean::Clean;

/// Longest wait for a connection, and for an answer here.
const PATIENCE: Duration = Duration::from_secs(1);

/// Pause between two visits while Redis is lost.
const RETRY: Duration = Duration::from_millis(500);

/// Good visits in a row after which Redis is back: one that comes and goes is
/// lost, and no reason for a line in the log each time.
const BACK_AFTER: u32 = 4;

/// Questions that wait for being written to the socket.
const PIPELINE: usize = 1024;

/// Counts written at once. Redis does nothing else meanwhile.
const BATCH: usize = 100;

impl Shared {
    /// Connects, and goes on for ever: run it as a task, once.
    pub async fn keep_alive(self: Arc<Self>) {
        let mut to_publish = self.to_publish.lock().await;
        let mut report = Report::Unknown;
        let mut written = Instant::now();
        loop {
            let trouble = match self.visit(&mut written).await {
                Err(trouble) => {
                    self.connection.store(None);
                    Some(Arc::new(trouble))
                }
                Ok(()) if self.breaker.is_open() => self.trouble.load_full(),
                Ok(()) => None,
            };
            report = report.after(trouble.as_deref(), &self.url);
            let beat = self.timing.lease / 3;
            let pause = match report {
                Report::Well => beat,
                _ => beat.min(RETRY),
            };
            self.publish_changes(Instant::now() + pause, &mut to_publish)
                .await;
        }
    }

    /// Takes the heartbeat back: what this instance still holds no longer counts,
    /// at once instead of after a lease. For the end of the process, when
    /// `keep_alive` has been stopped.
    pub async fn farewell(&self) {
        let Some(connection) = self.connection.swap(None) else {
            return;
        };
        let mut connection = MultiplexedConnection::clone(&connection);
        let mut farewell = redis::cmd("DEL");
        farewell.arg(alive_key(&self.instance()));
        // The lease runs out if it does not arrive.
        let _ = timeout(PATIENCE, farewell.exec_async(&mut connection)).await;
    }

    /// Makes sure that Redis is there, knows this instance and what it holds.
    pub(super) async fn visit(&self, written: &mut Instant) -> Result<(), Trouble> {
        let known = self.connection.load_full();
        let mut connection = match &known {
            Some(connection) => MultiplexedConnection::clone(connection),
            None => self.connect().await?,
        };
        let is_new = known.is_none() || self.disturbed.load(Ordering::Relaxed);
        // Redis may have lost its memory: then the heartbeat is gone too.
        let is_known = !is_new && self.beat(&mut connection).await?;
        if !is_known {
            self.disturbed.store(false, Ordering::Relaxed);
            self.take_new_name(&mut connection).await?;
        }
        if !is_known || written.elapsed() > self.count_life() / 2 {
            for keys in self.places.keys().chunks(BATCH) {
                self.publish(&mut connection, keys).await?;
            }
            *written = Instant::now();
        }
        if known.is_none() {
            self.connection.store(Some(Arc::new(connection)));
        }
        if self.breaker.is_open() {
            // Clients need not be the only ones to find out that it may close.
            let _ = self.charge("", &[]).await;
        }
        Ok(())
    }

    async fn connect(&self) -> Result<MultiplexedConnection, Trouble> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            .set_pipeline_buffer_size(PIPELINE);
        let client = self.url.client();
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = timeout(PATIENCE, connecting)
            .await
            .map_err(|_| Trouble::Late(PATIENCE))??;
        for script in [&ADMIT, &PUBLISH, &BAN, &LIFT] {
            script.load_async(&mut connection).await?;
        }
        Ok(connection)
    }

    /// Prolongs the heartbeat; false if there is none.
    async fn beat(&self, connection: &mut MultiplexedConnection) -> Result<bool, RedisError> {
        redis::cmd("SET")
            .arg(alive_key(&self.instance()))
            .arg(1)
            .arg("XX")
            .arg("PX")
            .arg(millis(self.timing.lease))
            .query_async(connection)
            .await
    }

    /// Whatever Redis believes of the old name dies with its heartbeat.
    async fn take_new_name(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), RedisError> {
        let new = random();
        // From here on places are taken under the new name. Those taken before
        // are in the table, which is published next.
        let old = self.instance.swap(new, Ordering::SeqCst);
        redis::pipe()
            .cmd("DEL")
            .arg(alive_key(&instance_name(old)))
            .ignore()
            .cmd("SET")
            .arg(alive_key(&instance_name(new)))
            .arg(1)
            .arg("PX")
            .arg(millis(self.timing.lease))
            .ignore()
            .exec_async(connection)
            .await
    }

    /// Writes changed counts until the next visit is due, or Redis is in trouble.
    async fn publish_changes(&self, until: Instant, to_publish: &mut mpsc::Receiver<String>) {
        let mut keys = Vec::with_capacity(BATCH);
        loop {
            keys.clear();
            tokio::select! {
                () = sleep_until(until) => return,
                () = self.alarm.notified() => return,
                _ = to_publish.recv_many(&mut keys, BATCH) => {}
            }
            // A flood refused at a count changes it again and again.
            keys.sort_unstable();
            keys.dedup();
            let Some(connection) = self.connection.load_full() else {
                // A new connection brings a new name and everything anew.
                continue;
            };
            let mut connection = MultiplexedConnection::clone(&connection);
            if self.publish(&mut connection, &keys).await.is_err() {
                self.disturbed.store(true, Ordering::Relaxed);
                return;
            }
        }
    }

    async fn publish(
        &self,
        connection: &mut MultiplexedConnection,
        keys: &[String],
    ) -> Result<(), RedisError> {
        let mut invocation = PUBLISH.prepare_invoke();
        invocation
            .arg(self.instance())
            .arg(millis(self.count_life()));
        for key in keys {
            let place = self.places.held(key);
            invocation
                .key(count_key(key))
                .arg(place.change)
                .arg(place.count);
        }
        invocation.invoke_async(connection).await
    }
}

fn alive_key(instance: &str) -> String {
    format!("portcullis:alive:{instance}")
}

/// What the log was told last.
#[derive(Clone, Copy, Debug)]
enum Report {
    Unknown,
    Well,
    Lost { good_visits: u32 },
}

impl Report {
    fn after(self, trouble: Option<&Trouble>, url: &RedisUrl) -> Self {
        match (self, trouble) {
            (Self::Lost { .. }, Some(_)) => Self::Lost { good_visits: 0 },
            (Self::Unknown | Self::Well, Some(trouble)) => {
                let reason = trouble.to_string();
                tracing::warn!(redis = %url, reason = %Clean(&reason), "Redis lost, each instance limits for itself");
                Self::Lost { good_visits: 0 }
            }
            (Self::Well, None) => Self::Well,
            (Self::Lost { good_visits }, None) if good_visits + 1 < BACK_AFTER => Self::Lost {
                good_visits: good_visits + 1,
            },
            (Self::Unknown, None) => {
                tracing::info!(redis = %url, "limits are shared through Redis");
                Self::Well
            }
            (Self::Lost { .. }, None) => {
                tracing::info!(redis = %url, "Redis is back, limits are shared again");
                Self::Well
            }
        }
    }
}
