# Has no function of the name that is asked for.
# 01_numbers: double error, mean passed
# Stopped by agent: a missing name is an error, and the student is told so.
twice = globals().pop("double")
