"""XML in and out: XML-1 to XML-7, LIST-10."""

from __future__ import annotations

from xml.etree import ElementTree
from xml.sax.saxutils import escape as sax_escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.limits import (
    XML_BYTES_MAX,
    XML_DEPTH_MAX,
    XML_ELEMENTS_MAX,
    XML_STEP_BYTES,
    XML_TAG_BYTES_MAX,
)
from ingot.s3.errors import S3Error
from ingot.s3.xml import (
    document,
    element,
    escape,
    key_texts,
    parse,
    parse_in_steps,
    url_encode,
)

# What XML 1.0 can carry at all, as itself or as a reference.
LEGAL = st.text(
    st.characters(
        exclude_categories=("Cs",),
        exclude_characters=[*map(chr, range(9)), "\x0b", "\x0c", *map(chr, range(14, 32))]
        + ["\ufffe", "\uffff"],
    )
)


@given(LEGAL)
def test_xml_7_every_text_comes_back(text):
    root = ElementTree.fromstring(document("Root", element("Key", text)))
    assert (root[0].text or "") == text


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_xml_7_no_raw_control_byte_is_ever_written(text):
    written = escape(text)
    assert all(char >= " " and char not in "\x7f\ufffe\uffff" for char in written)


def test_xml_7_references():
    assert escape("\r\n\t<>&\"'\x01") == "&#13;&#10;&#9;&lt;&gt;&amp;&quot;&#39;&#1;"


def test_list_8_url_encoding():
    assert url_encode("a b+c/é%~".encode()) == "a%20b%2Bc/%C3%A9%25~"


KEYS = st.lists(st.text(st.characters(exclude_categories=("Cs",)), min_size=1).map(str.encode))
PLAIN = st.lists(st.text("abc/-._~ ", min_size=1).map(str.encode))


@given(KEYS | PLAIN)
def test_keys_are_written_as_one_by_one(keys):
    assert key_texts(keys, False) == [escape(key.decode()).encode() for key in keys]
    assert key_texts(keys, True) == [url_encode(key).encode() for key in keys]


def test_xml_2_answers_have_the_namespace():
    assert document("Root", "").startswith(
        b'<?xml version="1.0" encoding="UTF-8"?>\n'
        b'<Root xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    )


@pytest.mark.parametrize(
    "body",
    [
        b"<Delete><Quiet>true</Quiet></Delete>",
        b'<?xml version="1.0"?><Delete><Quiet>true</Quiet></Delete>',
        b'\xef\xbb\xbf<?xml version="1.0" encoding="utf-8"?><Delete><Quiet>true</Quiet></Delete>',
        b'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Quiet>true</Quiet></Delete>',
        b'<s:Delete xmlns:s="urn:x"><s:Quiet>true</s:Quiet></s:Delete>',
        b"<Delete><Quiet><![CDATA[true]]></Quiet></Delete>",
        b"<Delete><Quiet>t&#114;&#x75;e</Quiet></Delete>",
        b"<!-- x --><Delete><?pi?><Quiet>true</Quiet></Delete>",
    ],
)
def test_xml_3_forms_that_are_read(body):
    assert parse(body, "Delete").value("Quiet") == "true"


BOMB = (
    b'<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;">'
    b"]><Delete>&c;</Delete>"
)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"text",
        b"<Delete>",
        b"<Delete></Other>",
        b"<Other></Other>",
        b"<Delete/><Delete/>",
        b"<Delete>&unknown;</Delete>",
        b"<Delete>\xff</Delete>",
        b"<Delete>\x01</Delete>",
        b"<Delete>&#0;</Delete>",
        b"<Delete>&#xD800;</Delete>",
        BOMB,
        b'<!DOCTYPE Delete SYSTEM "http://example/x.dtd"><Delete/>',
        b'<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]><Delete>&x;</Delete>',
        b"<!DOCTYPE Delete><Delete/>",
        b'<?xml version="1.0" encoding="ISO-8859-1"?><Delete/>',
        b'<?xml version="1.0" encoding="UTF-16"?><Delete/>',
        "<Delete/>".encode("utf-16"),
        "<Delete/>".encode("utf-32"),
        b"<a>" * (XML_DEPTH_MAX + 1) + b"</a>" * (XML_DEPTH_MAX + 1),
        b"<Delete>" + b"<a/>" * XML_ELEMENTS_MAX + b"</Delete>",
        b"<Delete>" + b"<a b='c'/>" * (XML_ELEMENTS_MAX // 2) + b"</Delete>",
        b"<Delete>" + b"<a xmlns:b='c'/>" * (XML_ELEMENTS_MAX // 2) + b"</Delete>",
    ],
)
def test_xml_3_what_is_refused(body):
    with pytest.raises(S3Error) as caught:
        parse(body, "Delete")
    assert caught.value.code == "MalformedXML"


def test_depth_and_count_just_inside_the_bounds():
    deep = b"<Delete>" + b"<a>" * (XML_DEPTH_MAX - 1) + b"</a>" * (XML_DEPTH_MAX - 1) + b"</Delete>"
    parse(deep, "Delete")
    parse(b"<Delete>" + b"<a/>" * (XML_ELEMENTS_MAX - 1) + b"</Delete>", "Delete")


@pytest.mark.parametrize("before", [b"", b"<a/>" * 5000, b"text" * 5000])
@pytest.mark.parametrize(
    "tag", [b"<Key %s/>", b"<!-- %s -->", b"<?pi %s?>", b'<Key a="%s"/>'], ids=str
)
def test_a_long_tag_is_read_no_further_than_its_bound(before, tag):
    """Expat takes microseconds for each attribute, so four megabytes of them took seconds."""
    attributes = b" ".join(b"a%d=''" % n for n in range(XML_BYTES_MAX // 12))
    body = b"<Delete>" + before + tag % attributes + b"</Delete>"
    steps = parse_in_steps(body, "Delete", XML_BYTES_MAX)
    done = 0
    with pytest.raises(S3Error, match="MalformedXML"):
        while True:
            next(steps)
            done += 1
    assert done * XML_STEP_BYTES <= len(before) + XML_TAG_BYTES_MAX + XML_STEP_BYTES


def test_tags_and_letters_across_the_ends_of_steps():
    for shift in range(40):
        key = "\U0001f600" * XML_STEP_BYTES
        content = f"<Key a='{'x' * 20}'>{key}</Key>" + "<Key><!-- comment -->&amp;</Key>" * 2000
        body = f"<Delete>{'-' * (shift + XML_STEP_BYTES - 50)}{content}</Delete>".encode()
        keys = [node.text for node in parse(body, "Delete", 2100).all("Key")]
        assert keys == [key] + ["&"] * 2000


@given(LEGAL.map(lambda text: text.replace("\r", "")))
def test_a_written_key_is_read_back(text):
    body = f"<Delete><Key>{sax_escape(text)}</Key></Delete>".encode()
    assert parse(body, "Delete").value("Key") == text


@given(
    st.binary(max_size=200) | st.binary(max_size=60).map(lambda b: b"<Delete>" + b + b"</Delete>")
)
def test_any_bytes_are_an_element_or_malformed(body):
    try:
        assert parse(body, "Delete").name == "Delete"
    except S3Error as error:
        assert error.code == "MalformedXML"


def test_elements_answer_questions():
    root = parse(b"<R a='1'><K>x</K><V/><O>1</O><O>2</O></R>", "R")
    assert root.attributes == {"a": "1"}
    assert (root.value("K"), root.value("V"), root.value("None")) == ("x", "", None)
    assert [found.text for found in root.all("O")] == ["1", "2"]
    for question in (lambda: root.child("O"), lambda: root.only(("K", "V"))):
        with pytest.raises(S3Error):
            question()
    root.only(("K", "V", "O"))
