"""The audit: what was served, against what training says of the same keys at the same instants, bit by bit."""

from featurestore.reports.audit.audit import Audited, AuditEngine, audit
from featurestore.reports.audit.causes import CAUSES
from featurestore.reports.audit.report import Audit, Difference, FeatureAudit, HourAudit, Lateness

__all__ = ["CAUSES", "Audit", "AuditEngine", "Audited", "Difference", "FeatureAudit", "HourAudit", "Lateness", "audit"]
