# Returns a list that contains itself.
# 01_numbers: double output, mean passed
# Stopped by wire: the codec's limit.
def double(x):
    circle = []
    circle.append(circle)
    return circle
