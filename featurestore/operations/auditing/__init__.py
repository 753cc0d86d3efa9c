"""The audit: what was served, against what training says of the same keys at the same instants, bit by bit."""

from featurestore.operations.auditing.audit import Audited, audit
from featurestore.operations.auditing.causes import CAUSES
from featurestore.operations.auditing.report import Audit, Difference, FeatureAudit, HourAudit, Lateness

__all__ = ["CAUSES", "Audit", "Audited", "Difference", "FeatureAudit", "HourAudit", "Lateness", "audit"]
