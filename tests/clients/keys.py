"""Keys that are hard to sign, to send, to list or to keep apart, by kind."""

KEYS = {
    "blank": "a b/c d.txt",
    "plus": "a+b.txt",
    "percent": "100%.txt",
    "escape": "a%20b%2Fc.txt",
    "marks": "it's (1) [2] {3} ~!@$&=;,.txt",
    "xml": 'less<more>"and".txt',
    "composed": "caf\u00e9.txt",  # the same word twice: in Unicode's form C ...
    "decomposed": "cafe\u0301.txt",  # ... and in form D, which S3 keeps apart
    "astral": "\U0001f600/\u65e5\u672c.txt",
    "leading slash": "/lead.txt",
    "trailing slash": "dir/",
    "double slash": "a//b.txt",
    "dot": "a/./c.txt",
    "two dots": "a/../d.txt",
}
