"""Hostile texts for labels, folder names, records and logs: escape sequences, invisible characters, formulas."""

TERMINAL = [
    "\x1b[31mred\x1b[0m",
    "a\x1b]0;title\x07b",
    "\x9b31mC1",
    "over\rwrite",
    "back\x08space",
    "nul\x00",
    "bell\a",
]
UNSEEN = [
    "\u202eright to left", "\u2066isolated\u2069", "zero\u200bwidth", "\ufeffmark", "tag\U000e0041", "soft\u00adhyphen",
    "variation\ufe0f", "filler\u3164", "surrogate\udcff", "private\ue000",
]  # fmt: skip
LINES = ["two\nlines", "an\n\nempty line", "tab\tin it", "dos\r\nline", "line\u2028separator", "next\x85line", "\n", ""]
FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", " =1", "＝1", "\n@x"]
MARKDOWN = [
    "a|b", "| a | b |", "`code`", "```", "**bold**", "*a* _b_", "__c__", "[link](http://x)", "![image](x)", "[^1]",
    "~~s~~", "[x]", "[x]: http://x", "[x][]", "[a [b](c)](d)", "![x]", "[ ] open", "[^1]: note", "&#38;", "&copy",
    "& &&",
    "<script>alert(1)</script>", "<!-- x", "&lt;", "R&D", "# heading", "- item", "+ item", "* item", "1. one", "2) two",
    "> quote", "---", "===", "$x^2$", "back\\slash", "\\|", "\\", "end\\", "_a_ hpl_pa a_", ":--:", "    code",
]  # fmt: skip
LATEX = [
    r"\textbf{x}", r"\input{/etc/passwd}", r"}\end{document}", "% comment", r"\\[1cm]", "[2cm] x", "* x", "x]", "^^M",
    "``a''",
    "{{{", "}}}", "a & b & c", "#1", "100 %", "?` !` ,, -- ---", "<<x>>", '"quoted"', "~ ^ _", r"\begin{verbatim}",
]  # fmt: skip
LETTERS = [
    "Poincaré",
    "Ångström ß æ ø",
    "a\u0301 combined",
    "λ = 0.5 ± 1 × 2",
    "中文",
    "\U0001f600",
    "no\u00a0break",
    "ą ę",
]
ALL = [*TERMINAL, *UNSEEN, *LINES, *FORMULAS, *MARKDOWN, *LATEX, *LETTERS]
