# Is a number where a function is asked for.
# 01_numbers: double error, mean passed
# Stopped by agent: a number cannot be called, and the student is told so.
double = 4
