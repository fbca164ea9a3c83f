# Fails to load with a text full of commands for terminals, Markdown, browsers and CI.
# 01_numbers: double error, mean error
# Stopped by report: the report makes a student's words harmless.
raise RuntimeError(
    "\x1b[31m\x1b]8;;http://evil.example\x07 ::error::owned <script>alert(1)</script> ``` ~~~ | x |\n::set-output::x"
)
