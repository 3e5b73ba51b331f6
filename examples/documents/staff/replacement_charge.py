"""What a borrower pays for an item that is lost or comes back damaged.

The rule of the board, in force since 1 September 2024:

* An item loses a tenth of its price for every full year since the library bought it.
* It never falls below 30 per cent of its price: even an old book has to be bought, covered and catalogued again.
* A fee of £3.80 is added for processing, except on Acorn cards.
* Somebody who brings an identical copy in good condition pays the processing fee only.
* If a lost item is found within 90 days of payment, the charge is paid back without the processing fee.

Used at the desk like this:

    python replacement_charge.py 18.00 4          # price in pounds, age in full years
    python replacement_charge.py 18.00 4 --acorn

Questions about this script go to Ravi Menon.
"""

from __future__ import annotations

import argparse
from decimal import ROUND_HALF_UP, Decimal

LOSS_A_YEAR = Decimal("0.10")
LOWEST_SHARE = Decimal("0.30")
PROCESSING_FEE = Decimal("3.80")

# Sets are charged by the part: losing one disc or one meeple does not cost the whole box.
PART_PRICES = {
    "audiobook disc": Decimal("4.25"),
    "board game piece": Decimal("1.00"),
    "board game rules": Decimal("2.50"),
    "laptop charger": Decimal("32.00"),
    "ukulele bag": Decimal("14.50"),
    "violin bow": Decimal("38.00"),
}

# Damage that is only marked inside the cover, never charged.
FREE_OF_CHARGE = ("pencil marks", "a torn jacket", "one loose page", "a cracked disc case")


def remaining_share(age: int) -> Decimal:
    """The share of its price that an item of `age` full years is still worth: 4 → 0.60, 12 → 0.30."""
    if age < 0:
        raise ValueError(f"An item cannot be {age} years old.")
    return max(1 - LOSS_A_YEAR * age, LOWEST_SHARE)


def replacement_charge(price: Decimal, age: int, *, acorn: bool = False, same_copy_brought: bool = False) -> Decimal:
    """Pounds to pay, rounded to the penny.

    >>> replacement_charge(Decimal("18.00"), 4)
    Decimal('14.60')
    >>> replacement_charge(Decimal("18.00"), 4, acorn=True)
    Decimal('10.80')
    """
    worth = Decimal(0) if same_copy_brought else price * remaining_share(age)
    fee = Decimal(0) if acorn else PROCESSING_FEE
    return (worth + fee).quantize(Decimal("0.01"), rounding=ROUND_HALF_UP)


def main() -> None:
    parser = argparse.ArgumentParser(description="Charge for a lost or damaged item.")
    parser.add_argument("price", type=Decimal)
    parser.add_argument("age", type=int)
    parser.add_argument("--acorn", action="store_true", help="the item is on a child's card")
    arguments = parser.parse_args()
    print(f"£{replacement_charge(arguments.price, arguments.age, acorn=arguments.acorn)}")


if __name__ == "__main__":
    main()
