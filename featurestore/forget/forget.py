"""Forget a key: everything of it that the store keeps goes, and what others keep of it does not count.

The order of the steps is such that a call that is killed anywhere leaves nothing that is untrue, and that the same call,
made again, completes it:

    the registry    says that the key is forgotten, as of an instant: from then on no reader of sources counts its rows
    online          its records, of every version of every view, and the tiles of files
    push logs       its rows, those that came too late and those that were taken back among them
    online          the values of other keys that counted such rows
    serving log     the lookups of it
    the registry    statistics of what its values may be among
    the registry    says that all is done, and so does the trail of activity
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from secrets import token_hex
from typing import Any

from featurestore.catalog import Catalog
from featurestore.declare.entity import Entity
from featurestore.declare.problems import shown
from featurestore.declare.push import KNOWN_AT, REPLACES, PushSource
from featurestore.errors import (
    DeclarationError,
    FingerprintError,
    LogError,
    MaterializeError,
    NotFoundError,
    RequestError,
    SourceError,
    did_you_mean,
)
from featurestore.forget.forgotten import Forgotten
from featurestore.forget.logged_rows import (
    LoggedSource,
    counting,
    forgotten_rows,
    mappings,
    remove_unfinished,
    rows_taken_back,
)
from featurestore.lazy import pa
from featurestore.materialize.progress import Progress
from featurestore.online.source_state import SourceState, state_key
from featurestore.online.value_checksums import read_past_damage
from featurestore.online.view_codec import ViewCodec
from featurestore.project import Project
from featurestore.registry.activity import Activity
from featurestore.registry.documents import service_views
from featurestore.registry.forgotten import Forgetting
from featurestore.registry.rollout import held_views
from featurestore.registry.store import Version
from featurestore.semantics.forgotten import SECRET_BYTES, ForgottenKey, ForgottenKeys, digest_sql
from featurestore.semantics.view import ResolvedView
from featurestore.serving.log.erasure import Wanted
from featurestore.serving.served_rows import input_column
from featurestore.sources.push_logs import ASIDE, ROWS
from featurestore.types import FeatureType

LOOK_SECONDS = 0.05

Values = tuple[Any, ...]


def forget(project: Project, entity: Any, key: Any, *, dry_run: bool) -> Forgotten:
    """Forget a key. See `FeatureStore.forget`."""
    declared = entity_of(entity, project.definitions, project.registry.history())
    return _Forget(project, declared, _checked(declared, key)).run(dry_run=dry_run)


def entity_of(asked: Any, definitions: Catalog, versions: Sequence[Version]) -> Entity:
    """An entity, itself or by its name, as it is at hand, or as it was applied last; NotFoundError."""
    name = asked.name if isinstance(asked, Entity) else asked
    if not isinstance(name, str):
        raise RequestError(f"An entity is asked for by its name, or itself, and not by {shown(asked)}")
    known = dict(definitions.entities)
    for version in versions:
        known = {**version.catalog.entities, **known}
    if name not in known:
        raise NotFoundError(
            f"No entity '{name}' was declared or applied{definitions.kind_of(name)}.{did_you_mean(name, known)}"
        )
    return known[name]


def _checked(entity: Entity, key: Any) -> dict[str, Any]:
    """The values of the key columns that are given, in the entity's order, as their types have them."""
    wanted = ", ".join(f"{name} ({of})" for name, of in entity.key.items())
    if not isinstance(key, Mapping):
        raise RequestError(f"A key is a dict of column and value, of {wanted or 'no column'}, and not {shown(key)}")
    for name in key:
        if name not in entity.key:
            hint = did_you_mean(str(name), entity.key, noun="Its keys")
            raise RequestError(f"Entity '{entity.name}' has no key column '{name}'.{hint}")
    if not key:
        raise RequestError(f"A key of entity '{entity.name}' is made of {wanted or 'no column, so that there is none'}")
    checked = {}
    for name, of in entity.key.items():
        if name in key:
            try:
                checked[name] = of.accept(key[name])
            except ValueError as error:
                raise RequestError(f"Key column '{name}' of entity '{entity.name}' is {of}: {error}") from None
            if checked[name] is None:
                raise RequestError(f"Key column '{name}' of entity '{entity.name}' is null, which is no key")
    return checked


def _some(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


@dataclass
class _Forget:
    """One call. key: column → value."""

    project: Project
    entity: Entity
    key: dict[str, Any]
    notices: list[str] = field(default_factory=list)

    def run(self, *, dry_run: bool) -> Forgotten:
        """Do it, or say what would be done."""
        self.versions = self._versions()
        self.logged = self._logged()
        self._check_logs()
        at = self._instant()
        before = self._before(None) if dry_run else self._before(self.project.registry.forget_secret())
        self.keys = before[0]
        self.at = max(at, self.keys.keys[0].at)
        self.keys = replace(self.keys, keys=(self.keys.keys[0]._replace(at=self.at),))
        self.state = replace(before[1], key=self.keys.keys[0], done_at=None)
        return self._told() if dry_run else self._done()

    def _done(self) -> Forgotten:
        self._put()
        records = self._erase_records()
        log_rows, late_rows = self._erase_logs()
        refilled = self._refill()
        self._settle_serving_log()
        timeout = self.project.config.lock_timeout
        served = self.project.serving_log.erase(self._served, wait_seconds=timeout)
        self.project.registry.drop_statistics(self._described())
        done = self._forgotten(records, log_rows, late_rows, served, refilled)
        counts = {
            "records": sum(records.values()),
            "log_rows": sum(log_rows.values()),
            "late_rows": sum(late_rows.values()),
        }
        detail = {"columns": list(self.key), **counts, "served_rows": served}
        self.state = replace(self.state, done_at=self.project.online.get([]).now)
        self.project.registry.put_forgetting(self.state, [Activity("forget", self.entity.name, detail)])
        return done

    def _described(self) -> list[str]:
        """The views of the entity, and the services that ever read one: statistics of these tell single values."""
        views = {view.name for view in self.versions}
        services = set()
        for version in self.project.registry.history():
            document = version.document
            services |= {name for name in document["services"] if views & service_views(document, name).keys()}
        return sorted(views | services)

    def _told(self) -> Forgotten:
        """What would be done."""
        online = self.project.online
        records: dict[str, int] = {}
        for view in self.versions:
            codec = self._codec(view)
            values, damaged = read_past_damage(online, [codec.key(values) for values in self._keys_of(view, codec)])
            count = len(values) - values.count(None) + len(damaged)
            records[view.name] = records.get(view.name, 0) + count
        log_rows, late_rows, refill = {}, {}, dict.fromkeys(self.state.refill)
        with self.project.offline.session(forgotten=self.keys) as session:
            for logged in self.logged:
                name = logged.source.name
                rows = list(forgotten_rows(session, logged, self.project.offline.log(logged.source)))
                log_rows[name] = sum(part.num_rows for part in rows)
                for part in rows:
                    refill |= dict.fromkeys(counting(session, self._over(name), part))
                late_rows[name] = rows_taken_back(session, logged, self._folder(name), erase=False)
                for which in ASIDE:
                    if self.project.offline.logs.has(name, which):
                        aside = forgotten_rows(session, logged, self.project.offline.log(logged.source, which))
                        late_rows[name] += sum(part.num_rows for part in aside)
        served = self.project.serving_log.count(self._served)
        return self._forgotten(records, log_rows, late_rows, served, tuple(refill), dry_run=True)

    def _forgotten(
        self, records: dict[str, int], log_rows: dict[str, int], late_rows: dict[str, int], served: int,
        refilled: Sequence[str], *, dry_run: bool = False,
    ) -> Forgotten:  # fmt: skip
        files = dict.fromkeys(view.source.name for view in self.versions if not isinstance(view.source, PushSource))
        history = (of.source.history for of in self.logged)
        files |= dict.fromkeys(source.name for source in history if source is not None)
        return Forgotten(
            self.entity.name, tuple(self.key), self.at, _some(records), _some(log_rows), _some(late_rows), served,
            tuple(refilled), tuple(files), tuple(self.notices), dry_run,
        )  # fmt: skip

    # --- what there is ----------------------------------------------------------------------

    def _versions(self) -> list[ResolvedView]:
        """Every version of every view of the entity that was ever applied, the newest first."""
        found: dict[tuple[str, str], ResolvedView] = {}
        others = set()
        for version in self.project.registry.history():
            for name, record in version.document["views"].items():
                if (name, record["fingerprint"]) in found or record["declared"]["entity"] != self.entity.name:
                    continue
                view = version.view(name)
                if view.declared.entity.key == self.entity.key:
                    found[name, record["fingerprint"]] = view
                else:
                    others.add(f"{name} {record['fingerprint'][:12]}")
        others_with = [
            entity.name
            for entity in self.project.definitions.entities.values()
            if entity.name != self.entity.name and self._given().items() <= entity.key.items()
        ]
        for name in others_with:
            columns = ", ".join(f"'{column}'" for column in self.key)
            self.notices.append(f"Entity '{name}' has a key column {columns} too: forget what is meant there as well.")
        if others:
            self.notices.append(
                "Versions of views that were applied while the entity had another key are left out; materialize frees them: "
                f"{', '.join(sorted(others))}."
            )
        return list(found.values())

    def _logged(self) -> list[LoggedSource]:
        """The push sources with a log here whose rows have the entity's key."""
        views: dict[str, list[ResolvedView]] = {}
        for view in [*self.versions, *self._at_hand()]:
            if isinstance(view.source, PushSource):
                views.setdefault(view.source.name, []).append(view)
        known = self.project.definitions.sources
        self.elsewhere = [of[0].source for name, of in views.items() if not self.project.offline.logs.has(name)]
        found = []
        for name, of in views.items():
            source = known.get(name, of[0].source)
            if isinstance(source, PushSource) and self.project.offline.logs.has(name):
                found.append(LoggedSource(source, mappings(of)))
        return found

    def _at_hand(self) -> Iterator[ResolvedView]:
        """Views of the entity over pushed rows that are declared, and perhaps not applied."""
        for view in self.project.catalog.views.values():
            if view.entity == self.entity and isinstance(view.source, PushSource):
                with suppress(DeclarationError, SourceError):  # then nobody ever trained on it
                    yield self.project.view(view)

    def _check_logs(self) -> None:
        """LogError where rows were pushed that lie in a log on another machine, or where none can be erased."""
        for logged in self.logged:
            if self.project.offline.logs.are_shared:
                raise LogError(
                    f"{logged.source.title}: its rows are logged in PostgreSQL (featurestore.toml, push_log), from which keys cannot be "
                    "forgotten yet. Nothing was forgotten"
                )
        online = self.project.online
        for source in self.elsewhere:
            assert isinstance(source, PushSource)
            state = online.get([state_key(self.project.config.project, source, tagged=online.tagged)]).values[0]
            if SourceState.unpack(state).last is not None:
                folder = self.project.offline.logs.folder_of(source.name)
                raise LogError(
                    f"{source.title}: rows were pushed to it, and its log is not in {folder}: keys are forgotten on the machine "
                    "that has the logs. Nothing was forgotten"
                )

    def _instant(self) -> int:
        """Now, by the online store's clock, and not before the last row that is logged."""
        last = [self.project.offline.log(logged.source).last_known_at() for logged in self.logged]
        return max([self.project.online.get([]).now, *(instant for instant in last if instant is not None)])

    def _before(self, secret: str | None) -> tuple[ForgottenKeys, Forgetting]:
        """The key as it is kept, and how far it was forgotten before. secret: None where none is to be made
        and the registry's, or one for this call alone, has to do."""
        known = self.project.registry.forgotten_keys()
        secret = secret or (known.secret if known is not None else token_hex(SECRET_BYTES))
        keys = [(name, of, f"k{place}") for place, (name, of) in enumerate(self._given().items())]
        values = {sql: pa.array([self.key[name]], of.arrow) for name, of, sql in keys}
        with self.project.offline.session() as session:
            session.connection.register("given", pa.table(values))
            sql = f"SELECT {digest_sql(secret, self.entity.name, keys)} FROM given"
            digest = session.connection.execute(sql).fetchall()[0][0]
        key = ForgottenKey(self.entity.name, tuple(self.key), digest, 0)
        for one in self.project.registry.forgettings():
            if one.key._replace(at=0) == key:
                return ForgottenKeys(secret, (one.key,)), one
        return ForgottenKeys(secret, (key,)), Forgetting(key)

    def _given(self) -> dict[str, FeatureType]:
        return {name: self.entity.key[name] for name in self.key}

    def _keys_of(self, view: ResolvedView, codec: ViewCodec) -> list[Values]:
        """The keys that are meant: the one, or, of a part of a key, all that a view version has online with it."""
        if len(self.key) == len(view.keys):
            return [tuple(self.key[key.name] for key in view.keys)]
        places = [(place, self.key[key.name]) for place, key in enumerate(view.keys) if key.name in self.key]
        every = (codec.values_of(key) for keys in self.project.online.scan(codec.record_prefix) for key in keys)
        return [tuple(values) for values in every if all(values[place] == wanted for place, wanted in places)]

    def _served(self, service: str, fingerprint: str) -> Wanted:
        """By which columns of a service version's log a lookup of the key is known."""
        try:
            parts = self.project.serving.applied_version(service, fingerprint).parts
        except FingerprintError:
            self.notices.append(
                f"The serving log of {service} {fingerprint[:12]} was not looked through: the registry knows no such version."
            )
            return []
        wanted: dict[tuple[str, ...], dict[str, pa.Scalar]] = {}
        for part in parts:
            if part.view.declared.entity.name == self.entity.name:
                inputs = {key.name: name for key, name in zip(part.view.keys, part.inputs, strict=True)}
                if self.key.keys() <= inputs.keys():
                    given = self._given().items()
                    values = {input_column(inputs[name]): pa.scalar(self.key[name], of.arrow) for name, of in given}
                    wanted.setdefault(tuple(values), values)
        return list(wanted.values())

    # --- the steps --------------------------------------------------------------------------

    def _codec(self, view: ResolvedView) -> ViewCodec:
        return ViewCodec(self.project.config.project, view, tagged=self.project.online.tagged)

    def _put(self) -> None:
        self.project.registry.put_forgetting(self.state)

    def _erase_records(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        pushed: dict[str, list[ResolvedView]] = {}
        for view in self.versions:
            if view.is_pushed:
                pushed.setdefault(view.source.name, []).append(view)
            else:
                counts[view.name] = counts.get(view.name, 0) + self._erase_materialized(view)
        for name, views in pushed.items():
            pusher = self.project.pushing.pusher_of(name) if self.project.offline.logs.has(name) else None
            for view in views:
                codec = self._codec(view)
                keys = self._keys_of(view, codec)
                if pusher is not None:
                    count = pusher.forget_keys([(view, keys)], at=self.at)
                else:
                    count = self._delete([codec.key(values) for values in keys])
                counts[view.name] = counts.get(view.name, 0) + count
        return counts

    def _erase_materialized(self, view: ResolvedView) -> int:
        """Where somebody fills the view just now, that is waited for."""
        deadline = time.monotonic() + self.project.config.lock_timeout
        while True:
            codec = self._codec(view)
            try:
                return self.project.materializer.forget(
                    view, [codec.key(values) for values in self._keys_of(view, codec)]
                )
            except MaterializeError as error:
                if time.monotonic() > deadline:
                    raise MaterializeError(
                        f"{error}. The key is forgotten, and not erased yet: forget it again then"
                    ) from None
            time.sleep(LOOK_SECONDS)

    def _delete(self, keys: list[bytes]) -> int:
        values, damaged = read_past_damage(self.project.online, keys)
        there = [key for key, value in zip(keys, values, strict=True) if value is not None or key in damaged]
        if there:
            self.project.online.write(dict.fromkeys(there))
        return len(there)

    def _erase_logs(self) -> tuple[dict[str, int], dict[str, int]]:
        log_rows, late_rows = {}, {}
        offline = self.project.offline
        with offline.session(forgotten=self.keys) as session:
            for logged in self.logged:
                name = logged.source.name
                known = []
                pusher, over = self.project.pushing.pusher_of(name), self._over(name)
                for rows in forgotten_rows(session, logged, offline.log(logged.source)):
                    known.append(rows[KNOWN_AT].combine_chunks())
                    self._note(name, counting(session, over, rows))
                    if pusher is not None:
                        pusher.forget_rows(rows)
                erased = pa.concat_arrays(known or [pa.array([], pa.int64())])
                log_rows[name] = offline.log(logged.source, ROWS).erase(erased, kept=(REPLACES,))
                remove_unfinished(offline.log(logged.source), self._folder(name))
                late_rows[name] = rows_taken_back(session, logged, self._folder(name), erase=True)
                for which in ASIDE:
                    if offline.logs.has(name, which):
                        aside = offline.log(logged.source, which)
                        known = [rows[KNOWN_AT].combine_chunks() for rows in forgotten_rows(session, logged, aside)]
                        erased = pa.concat_arrays(known or [pa.array([], pa.int64())])
                        late_rows[name] += aside.erase(erased, kept=(REPLACES,))
        return log_rows, late_rows

    def _note(self, source: str, refill: Sequence[str]) -> None:
        """Keep, before rows go out of a log, that they do, and which views are to be filled again."""
        sources, wanted = (
            tuple(dict.fromkeys(names)) for names in ((*self.state.sources, source), (*self.state.refill, *refill))
        )
        if (sources, wanted) != (self.state.sources, self.state.refill):
            self.state = replace(self.state, sources=sources, refill=wanted)
            self._put()

    def _over(self, source: str) -> list[ResolvedView]:
        """The applied views over a push source, and those of kept services."""
        registry = self.project.registry
        current = registry.current()
        views = [current.view(name) for name in current.document["views"]]
        return [view for view in (*views, *(held.view for held in held_views(registry))) if view.source.name == source]

    def _folder(self, source: str) -> Any:
        return self.project.offline.logs.folder_of(source).parent

    def _refill(self) -> tuple[str, ...]:
        """Fill the views again that counted rows which are gone, for other keys."""
        filled = []
        for name in self.state.refill:
            with suppress(NotFoundError):  # it is not applied any more
                for view in self.project.applied([name]):
                    self.project.materializer.materialize(view, full=True, progress=Progress(shown=False))
                    filled.append(name)
        if self.state.refill:
            self.state = replace(self.state, refill=())
            self._put()
        return tuple(dict.fromkeys(filled))

    def _settle_serving_log(self) -> None:
        """Let other processes that serve write what they served before the records went."""
        self.project.serving_log.settle()
