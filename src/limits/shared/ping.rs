//! Whether Redis is there, asked once and from outside of any sharing.

use std::time::Duration;

use redis::{AsyncConnectionConfig, RedisError};
use tokio::time::timeout;

use super::RedisUrl;

/// Longest wait for the connection with its sign-in, and for the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why Redis cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PingError {
    /// It gave no answer in time.
    #[error("no answer within {PATIENCE:?}")]
    Late,
    /// It cannot be reached, or refuses.
    #[error(transparent)]
    Redis(#[from] RedisError),
}

impl RedisUrl {
    /// Connects, signs in and asks for the time: TIME is among the few commands
    /// that the narrowest user must be allowed, PING is not.
    ///
    /// # Errors
    /// [`PingError`]; no text of it holds the password.
    pub async fn ping(&self) -> Result<(), PingError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let client = self.client();
        let asked = async {
            let mut connection = client
                .get_multiplexed_async_connection_with_config(&config)
                .await?;
            redis::cmd("TIME").exec_async(&mut connection).await
        };
        let answered = timeout(PATIENCE, asked).await;
        answered.map_err(|_| PingError::Late)?.map_err(Into::into)
    }
}
