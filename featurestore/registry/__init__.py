"""What has been applied: every version as one document, the difference of two as a plan."""
