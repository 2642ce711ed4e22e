//! The answers of secret commands, all that a look needs, each asked once and several at a time: a tick must not wait for one
//! slow password manager after the other.

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::Poll;

use crate::desired::Desired;
use crate::ports::secrets::Secrets;
use crate::ports::world::Commands;

/// So many commands run at once: enough to hide their waits, few enough not to look like an attack on a password manager.
const AT_ONCE: usize = 16;

/// Asks every command that a service of the tree names and wants now.
pub(super) async fn commands(secrets: &dyn Secrets, desired: &Desired) -> Commands {
    let mut wanted: BTreeSet<(PathBuf, Vec<String>)> = BTreeSet::new();
    for resource in desired.resources.values() {
        let commands = resource.spec.secrets().into_iter().filter_map(|(_, from)| from.command.clone());
        wanted.extend(commands.map(|argv| (resource.document.folder.clone(), argv)));
    }
    let ask = |key: (PathBuf, Vec<String>)| async move {
        let answer = secrets.command(&key.1, &key.0).await;
        (key, answer)
    };
    all(wanted.into_iter().map(ask)).await.into_iter().collect()
}

/// Waits for all of them, at most [`AT_ONCE`] at a time.
async fn all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting = futures.fuse();
    let mut running: Vec<Pin<Box<F>>> = Vec::new();
    let mut done = Vec::new();
    poll_fn(move |context| {
        loop {
            running.extend(waiting.by_ref().take(AT_ONCE - running.len()).map(Box::pin));
            let before = done.len();
            running.retain_mut(|future| match future.as_mut().poll(context) {
                Poll::Ready(value) => {
                    done.push(value);
                    false
                }
                Poll::Pending => true,
            });
            if running.is_empty() && done.len() == before {
                return Poll::Ready(std::mem::take(&mut done));
            }
            if done.len() == before {
                return Poll::Pending;
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Is ready when it was asked for the second time.
    async fn slow(number: usize, running: &Cell<usize>, most: &Cell<usize>) -> usize {
        running.set(running.get() + 1);
        most.set(most.get().max(running.get()));
        let mut asked = false;
        poll_fn(|context| {
            if std::mem::replace(&mut asked, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        running.set(running.get() - 1);
        number
    }

    #[test]
    fn several_run_at_once_and_never_too_many() {
        let (running, most) = (Cell::new(0), Cell::new(0));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut done = runtime.block_on(all((0..100).map(|number| slow(number, &running, &most))));
        done.sort_unstable();
        assert_eq!(done, (0..100).collect::<Vec<_>>());
        assert_eq!(most.get(), AT_ONCE);
        assert!(runtime.block_on(all(std::iter::empty::<std::future::Ready<()>>())).is_empty());
    }
}
