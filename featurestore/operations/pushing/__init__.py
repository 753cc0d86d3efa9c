"""Push: validate → reserve known_at → durable log → apply in order → acknowledge.

rows        what was sent, as a table of the source's columns, or an error that names row and column
state       how far a source's log is applied online, and what is reserved
identities  which version of a row is the last, and what was pushed already
merging     rows into the records of every view over the source
folding     records from the log itself: to fill a view, and where rows are replaced
pusher      the steps in order, for everyone who pushes at the same time together
"""
