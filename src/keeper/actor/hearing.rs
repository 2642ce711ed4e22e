//! Listening to what units say of themselves.

use rustix::event::epoll::{self, EventData, EventFlags};

use super::{Source, Units};
use crate::keeper::notify::{self, Address, Notices, Word};
use crate::keeper::table::Event;

impl Units {
    /// Opens the socket of a unit that speaks, and closes that of one that does not any more.
    pub(super) fn open_notices(&mut self, id: u32) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        if slot.state.policy.notify.is_none() {
            slot.notices = None;
            return;
        }
        let address = Address::of(
            &self.folders.run,
            &self.state_id,
            &slot.name,
            notify::user(slot.launch.as_ref(), slot.state.process()),
        );
        if slot.notices.as_ref().is_some_and(|notices| *notices.address() == address) {
            return;
        }
        match Notices::bind(address) {
            Ok(notices) => self.watch_notices(id, notices),
            Err(cause) => self.note(id, &format!("it cannot be heard (NOTIFY_SOCKET): {cause}")),
        }
    }

    pub(super) fn watch_notices(&mut self, id: u32, notices: Notices) {
        let data = EventData::new_u64((self.token)(Source::Notice { slot: id }));
        if let Err(cause) = epoll::add(&self.epoll, notices.fd(), data, EventFlags::IN) {
            return self.note(id, &format!("it cannot be heard (NOTIFY_SOCKET): {cause}"));
        }
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.notices = Some(notices);
        }
    }

    /// A unit said something of itself.
    pub(super) fn noticed(&mut self, id: u32) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let main = slot.state.process().map(|process| process.pid);
        let words = slot.notices.as_ref().map(|notices| notices.read(main)).unwrap_or_default();
        for word in words {
            let event = match word {
                Word::Ready => Event::Notified,
                Word::Alive => Event::Alive,
                Word::Extend(span) => Event::Extend(span),
                Word::Trigger => Event::Unwell { pid: None, why: "it asked for it (WATCHDOG=trigger)".to_owned() },
                Word::Status(status) => {
                    if let Some(slot) = self.slots.get_mut(&id) {
                        slot.status = Some(status);
                    }
                    continue;
                }
            };
            self.feed(id, event);
        }
        self.settle(id);
    }
}
