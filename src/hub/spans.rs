//! What became of the spans of this process, for `/metrics`: said only when there is a collector that they are for.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;

use crate::ports::traces::TALLY;

#[derive(Debug)]
pub(super) struct OfSpans;

impl Collector for OfSpans {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        if !TALLY.has_begun() {
            return Ok(());
        }
        let help = "Spans for the collector, by what came of them";
        let kind = ConstCounter::new(0_u64).metric_type();
        let mut family = encoder.encode_descriptor("trace_spans", help, None, kind)?;
        for (outcome, spans) in [("sent", TALLY.sent()), ("dropped", TALLY.dropped())] {
            ConstCounter::new(spans).encode(family.encode_family(&[("outcome", outcome)])?)?;
        }
        Ok(())
    }
}
