"""What the payroll office gets."""


def totals(shifts):
    """The hours of each person."""
    hours = {}
    for shift in shifts:
        hours[shift.person] = hours.get(shift.person, 0.0) + shift.hours
    return hours
