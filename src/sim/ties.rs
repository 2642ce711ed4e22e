//! The pretend vaults, sinks and tokens.

use std::rc::Rc;

use super::world::Pretend;
use crate::model::secret::Secret;
use crate::ports::bearers::{Bearers, Holdings, Minted, Wanted};
use crate::ports::peers::{Call, Peers, Reply};
use crate::ports::tokens::Stripped;
use crate::ports::{Answer, PortError};

fn none<T>() -> Result<T, PortError> {
    Err(PortError::Retry("nobody is there".to_owned()))
}

impl Peers for Pretend {
    fn call(&self, _: Call) -> Answer<'_, Result<Reply, PortError>> {
        Box::pin(std::future::ready(none()))
    }
}

impl Bearers for Pretend {
    fn set_origins(&self, _: &str, _: &[String]) {}
    fn holdings(&self) -> Result<Rc<Holdings>, PortError> {
        Ok(Rc::default())
    }
    fn register(&self, _: &Wanted) -> Result<Minted, PortError> {
        none()
    }
    fn again(&self, _: &str) -> Result<Option<Minted>, PortError> {
        Ok(None)
    }
    fn brief(&self, _: &str, _: &str, _: &[String]) -> Result<Secret, PortError> {
        none()
    }
    fn revoke(&self, _: &str) -> Result<(), PortError> {
        Ok(())
    }
    fn strip_vault(&self, _: &str) -> Result<Stripped, PortError> {
        Ok(Stripped::default())
    }
}
