"""Lifecycle rules: LIFE-1 and LIFE-3, documents and what clients are told."""

from __future__ import annotations

import datetime
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.limits import XML_STEP_BYTES
from ingot.s3 import lifecycle
from ingot.s3.errors import S3Error
from ingot.s3.lifecycle import DAY_MS, Filter, Rule
from ingot.s3.lifecycle_index import RuleIndex
from tests.s3.driver import Driver
from tests.s3.test_configuration import put

ONE = "<Expiration><Days>1</Days></Expiration>"
ANY = "<Filter/>"


def config(*rules):
    return f"<LifecycleConfiguration>{''.join(rules)}</LifecycleConfiguration>"


def rule(actions=ONE, about=ANY, status="Enabled", identity="<ID>one</ID>"):
    return f"<Rule>{identity}{about}<Status>{status}</Status>{actions}</Rule>"


def tag(key, value=""):
    return f"<Tag><Key>{key}</Key><Value>{value}</Value></Tag>"


def where(content):
    return f"<Filter>{content}</Filter>"


def noncurrent(days, newer=""):
    inner = f"<NoncurrentDays>{days}</NoncurrentDays>{newer}"
    return f"<NoncurrentVersionExpiration>{inner}</NoncurrentVersionExpiration>"


def newer(count):
    return f"<NewerNoncurrentVersions>{count}</NewerNoncurrentVersions>"


def expire(inner):
    return f"<Expiration>{inner}</Expiration>"


def abort(days):
    inner = f"<DaysAfterInitiation>{days}</DaysAfterInitiation>"
    return f"<AbortIncompleteMultipartUpload>{inner}</AbortIncompleteMultipartUpload>"


LARGER = "<ObjectSizeGreaterThan>{}</ObjectSizeGreaterThan>"
SMALLER = "<ObjectSizeLessThan>{}</ObjectSizeLessThan>"


@pytest.fixture
def driver():
    made = Driver()
    made.bucket()
    return made


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (config(rule()), None),
        (config(rule(about="<Prefix>a</Prefix>")), None),
        (config(rule(about="<Prefix/>")), None),
        (config(rule(about=where("<Prefix>a</Prefix>"))), None),
        (config(rule(about=where(tag("k", "v")))), None),
        (config(rule(about=where(LARGER.format(0)))), None),
        (config(rule(about=where(f"<And><Prefix>a</Prefix>{tag('k')}{tag('l')}</And>"))), None),
        (config(rule(expire("<Date>2026-11-27T00:00:00.000Z</Date>"))), None),
        (config(rule(expire("<Date>2026-11-27</Date>"))), None),
        (config(rule(expire("<ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker>"))), None),
        (config(rule(noncurrent(1, newer(100)))), None),
        (config(rule(abort(7))), None),
        (config(rule(), rule(identity="<ID>two</ID>")), None),
        (config(), "MalformedXML"),
        (config(rule(status="enabled")), "MalformedXML"),
        (config(rule(about="")), "MalformedXML"),
        (config(rule(about=ANY + "<Prefix/>")), "MalformedXML"),
        (config(rule(about=where("<Prefix/>" + tag("k")))), "MalformedXML"),
        (config(rule(about=where("<And/>"))), "MalformedXML"),
        (config(rule(about=where("<Other/>"))), "MalformedXML"),
        (config(rule(about=where(LARGER.format(-1)))), "MalformedXML"),
        (
            config(rule(about=where(f"<And>{LARGER.format(5)}{SMALLER.format(5)}</And>"))),
            "InvalidRequest",
        ),
        (config(rule(about=where(f"<And>{tag('k')}{tag('k')}</And>"))), "InvalidTag"),
        (config(rule("")), "InvalidRequest"),
        (config(rule("<Expiration/>")), "MalformedXML"),
        (config(rule(expire("<Days>0</Days>"))), "InvalidArgument"),
        (config(rule(expire("<Days>-1</Days>"))), "InvalidArgument"),
        (config(rule(expire("<Days>x</Days>"))), "MalformedXML"),
        (config(rule(expire("<Days>1</Days><Date>2026-11-27</Date>"))), "MalformedXML"),
        (config(rule(expire("<Date>2026-11-27T01:00:00Z</Date>"))), "InvalidArgument"),
        (config(rule(expire("<Date>20200101x</Date>"))), "MalformedXML"),
        (config(rule(expire("<ExpiredObjectDeleteMarker/>"))), "MalformedXML"),
        (config(rule(noncurrent(0))), "InvalidArgument"),
        (config(rule(noncurrent(1, newer(0)))), "InvalidArgument"),
        (config(rule(noncurrent(1, newer(101)))), "InvalidArgument"),
        (config(rule(noncurrent("", newer(1)))), "MalformedXML"),
        (config(rule(abort(0))), "InvalidArgument"),
        (config(rule(abort(1), where(tag("k")))), "InvalidRequest"),
        (config(rule(abort(1), where(LARGER.format(1)))), "InvalidRequest"),
        (
            config(
                rule(
                    expire("<ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker>"),
                    where(tag("k")),
                )
            ),
            "InvalidRequest",
        ),
        (config(rule("<Transition><Days>1</Days></Transition>")), "NotImplemented"),
        (config(rule(ONE + "<NoncurrentVersionTransition/>")), "NotImplemented"),
        (config(rule(), rule()), "InvalidArgument"),
        (config(rule(identity=f"<ID>{'i' * 256}</ID>")), "InvalidArgument"),
        (config(*[rule(identity=f"<ID>{n}</ID>") for n in range(1001)]), "MalformedXML"),
    ],
)
def test_life_1_rules(driver, body, code):
    answer = put(driver, "lifecycle", body)
    assert answer.status == 200 if code is None else answer.code == code, answer.body


def test_life_1_a_rule_without_an_id_gets_one(driver):
    body = config(*[rule(identity="")] * 2)
    assert put(driver, "lifecycle", body).status == 200
    first, second = driver.ask("GET", "/bucket", "lifecycle").texts("Rule/ID")
    assert first and second and first != second
    assert driver.ask("GET", "/bucket", "lifecycle").texts("Rule/ID") == [first, second]


def test_life_3_order_and_form_come_back(driver):
    rules = [
        {
            "ID": "z",
            "Prefix": "old/",
            "Status": "Disabled",
            "Expiration": {"Days": 3},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 2},
        },
        {
            "ID": "a",
            "Filter": {
                "And": {
                    "Prefix": "logs/",
                    "Tags": [{"Key": "k", "Value": "v"}, {"Key": "l", "Value": ""}],
                    "ObjectSizeGreaterThan": 10,
                    "ObjectSizeLessThan": 100,
                }
            },
            "Status": "Enabled",
            "Expiration": {"Date": datetime.datetime(2030, 1, 2, tzinfo=datetime.UTC)},
        },
        {
            "ID": "m",
            "Filter": {"Prefix": ""},
            "Status": "Enabled",
            "Expiration": {"ExpiredObjectDeleteMarker": True},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 1, "NewerNoncurrentVersions": 2},
        },
        {"ID": "t", "Filter": {"Tag": {"Key": "k", "Value": "v"}}, "Status": "Enabled"}
        | {"Expiration": {"Days": 1}},
    ]
    client = driver.client()
    client.put_bucket_lifecycle_configuration(
        Bucket="bucket", LifecycleConfiguration={"Rules": rules}
    )
    found = client.get_bucket_lifecycle_configuration(Bucket="bucket")
    assert found["Rules"] == rules
    assert found["TransitionDefaultMinimumObjectSize"] == "all_storage_classes_128K"
    client.delete_bucket_lifecycle(Bucket="bucket")
    assert driver.ask("GET", "/bucket", "lifecycle").code == "NoSuchLifecycleConfiguration"


NUMBERS = st.none() | st.integers(1, 100)
NAMES = st.text("abcä ", min_size=1, max_size=5)
FILTERS = st.one_of(
    st.builds(Filter, NAMES, form=st.just("Prefix")),
    st.builds(Filter, NAMES),
    st.builds(Filter, larger_than=st.integers(0, 9)),
    st.builds(
        Filter,
        NAMES,
        st.dictionaries(NAMES, NAMES, max_size=3).map(lambda tags: tuple(sorted(tags.items()))),
        st.none() | st.integers(0, 9),
        st.none() | st.integers(10, 19),
        st.just("And"),
    ),
)


@given(st.data())
def test_life_1_rules_are_read_as_written(data):
    rules = []
    for number in range(data.draw(st.integers(1, 4))):
        about = data.draw(FILTERS)
        days, noncurrent_days = data.draw(NUMBERS), data.draw(NUMBERS)
        if days is None and noncurrent_days is None:
            days = 1
        kept = data.draw(NUMBERS) if noncurrent_days else None
        made = Rule(str(number), data.draw(st.booleans()), about, days)
        rules.append(
            Rule(
                made.id,
                made.enabled,
                about,
                days,
                noncurrent_days=noncurrent_days,
                newer=kept,
            )
        )
    assert lifecycle.read(lifecycle.write(rules)) == tuple(rules)


@given(st.binary(max_size=200))
def test_life_1_anything_else_is_refused(body):
    with pytest.raises(S3Error):
        lifecycle.read(body)


@given(st.integers(0, 4 * 10**12), st.integers(1, 10_000))
def test_days_end_at_midnight(created_ms, days):
    at = lifecycle.due(created_ms, days)
    assert at % DAY_MS == 0 and days * DAY_MS <= at - created_ms < (days + 1) * DAY_MS
    assert lifecycle.due(created_ms, days, 10_000) == created_ms + days * 10_000


@pytest.mark.parametrize(
    ("about", "fits"),
    [
        (Filter("a/"), True),
        (Filter("b/"), False),
        (Filter(larger_than=9), True),
        (Filter(larger_than=10), False),
        (Filter(smaller_than=11), True),
        (Filter(smaller_than=10), False),
        (Filter(tags=(("k", "v"),)), True),
        (Filter(tags=(("k", "w"),)), False),
        (Filter(tags=(("l", ""),)), False),
        (Filter("a/", (("k", "v"),), 9, 11), True),
        (Filter("a/", (("k", "v"),), 9, 10), False),
    ],
)
def test_filters(about, fits):
    assert about.fits(b"a/x", 10, {"k": "v"}) is fits


def test_life_3_the_header_names_the_first_to_come():
    created = 1_800_000_000_000
    rules = [
        Rule("never", True, Filter("b")),
        Rule("later", True, Filter(), days=5),
        Rule("sooner & later", True, Filter("a"), days=3),
        Rule("off", False, Filter(), days=1),
        Rule("tagged", True, Filter(tags=(("k", "v"),)), days=1),
    ]
    value = lifecycle.expiration_header(rules, b"a", 1, created, {}).decode()
    date, name = value.removeprefix('expiry-date="').split('", rule-id="')
    assert name == 'sooner%20%26%20later"'
    at = parsedate_to_datetime(date)
    assert (at.hour, at.minute, at.second) == (0, 0, 0)
    assert 3 * 86400 <= at.timestamp() - created / 1000 < 4 * 86400
    assert b"tagged" in lifecycle.expiration_header(rules, b"a", 1, created, {"k": "v"})
    assert lifecycle.expiration_header(rules[:1], b"a", 1, created, {}) is None


# -- found by what they are about ------------------------------------------------------------------

GIVEN = st.dictionaries(st.sampled_from("kl"), st.sampled_from("vw"), max_size=2)
ABOUT = st.builds(
    lambda prefix, tags, larger: Filter(prefix, tuple(tags.items()), larger),
    st.none() | st.text("ab", max_size=3),
    GIVEN,
    st.none() | st.integers(0, 2),
)


@given(
    st.lists(st.tuples(ABOUT, st.booleans()), max_size=8),
    st.text("ab", max_size=4),
    st.integers(0, 3),
    GIVEN,
)
def test_an_index_finds_the_rules_that_fit_in_their_order(filters, key, size, tags):
    rules = [Rule(str(n), on, about, days=1) for n, (about, on) in enumerate(filters)]
    index, name = RuleIndex(rules), key.encode()

    def fitting(found):
        return [rule for rule in found if rule.enabled and rule.filter.fits(name, size, tags)]

    assert fitting(index.about(name, tags)) == fitting(rules)
    assert fitting(index.plain(name)) == [rule for rule in fitting(rules) if not rule.filter.tags]
    assert fitting(index.tagged(name, tags)) == [r for r in fitting(rules) if r.filter.tags]
    assert index.asks_tags(name) or not fitting(index.tagged(name, tags))


def test_of_many_rules_few_are_looked_at():
    """The most rules, each about other objects, by tag and by prefix."""
    most = lifecycle.RULES_MAX // 2
    rules = [Rule(f"t{n}", True, Filter(tags=((f"t{n}", "x"),)), days=1) for n in range(most)]
    rules += [Rule(f"p{n}", True, Filter(f"p{n:03d}/"), days=1) for n in range(most)]
    index = RuleIndex(rules)
    assert index.about(b"p007/key", {"t8": "x", "t9": "y"}) == [rules[8], rules[most + 7]]
    assert index.soonest_tagged == [Rule("", True, Filter(), days=1)]


def test_a_document_of_many_rules_is_read_in_steps():
    rules = [Rule(f"{n}", True, Filter(f"{n}/"), days=1) for n in range(lifecycle.RULES_MAX)]
    document = lifecycle.write(rules)
    steps = lifecycle.read_in_steps(document)
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            assert list(end.value) == rules
            break
        count += 1
    assert count >= len(document) // XML_STEP_BYTES + len(rules) // lifecycle.RULES_A_STEP
