#!/usr/bin/env python3
"""Writes the demo's data: free-text orders to a small shop, and the JSON record each stands for.

Held-out orders share no sentence pattern, customer or article with the training ones; days and numbers are the same
few words everywhere. Held-out names and articles are common words. Everything here was written for this project (Apache-2.0). Usage: tools/make_demo_data.py
"""
import json
import pathlib
import random

SYSTEM = "Order as JSON: name, item, count, day."
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
           "eleven": 11, "twelve": 12}

TRAIN_FIRST = """Anna Ben Carla David Elena Felix Greta Hugo Iris Jonas Klara Leo Marta Nils Olga Paul Rita Simon Tessa
Umar Vera Walter Yara Zoe Amir Bianca Cyril Dalia Emil Farah Gustav Hanna Ivan Jana Karim Lena Milan Nora Otto Petra Rafael
Salma Tomas Ursula Viktor Wanda Xaver Yusuf Zelda Arthur Beatrice Adele Alvin Basil Bertha Bruno Camille Cedric Clara Conrad
Daphne Denis Dorothy Edgar Edith Elmer Erika Ernest Fiona Flora Francis Georgia Gilbert Hector Helga Herbert Hilda Horace Irma
Isaac Ivy Jerome Joanna Julius Kenneth Laura Leonard Lillian Lloyd Louisa Mabel Magnus Marcel Martin Maxine Mildred Morgan
Natalie Nathan Nelson Nicole Norman Pamela Patrick Percy Rachel Ralph Regina Robert Rodney Roland Rosa Rufus Sabine Samuel
Sandra Seymour Sheila Sidney Sonia Stella Sybil Sylvia Terence Theodor Tobias Trevor Valerie Vincent Virgil Vivian Warren
Wilbur Wilma Winston""".split()
TRAIN_LAST = """Abbott Becker Castillo Dahl Eriksen Fontaine Garcia Holm Ibsen Jansen Keller Lindqvist Moreau Novak
Ortega Petrov Quinn Rossi Schmidt Tanaka Ulrich Vargas Weber Xu Young Zimmer Arslan Bianchi Chen Duarte Engel Fischer
Archer Baldwin Barker Bishop Bradley Burke Carver Chandler Connor Crane Dalton Dawson Draper Dunn Elliott Emerson Farmer
Fleming Fowler Gibson Glover Goodman Graves Hale Harper Hayes Holland Hunt Ingram Irving Jennings Kemp Kirk Lambert Lawson
Little Lowell Marsh Mercer Mills Monroe Nash Newton Norris Osborn Palmer Payne Porter Potter Reeves Rhodes Sawyer Sexton
Sharp Skinner Snyder Stone Sutton Thornton Turner Underwood Vance Wagner Walsh Webster Wheeler Whitney Yates""".split()
TEST_FIRST = """James Mary Michael Sarah Peter Susan Jack Emma Alice Henry George Daniel Lucas Julia Maria Eric Adam Kate Lucy
Mark""".split()
TEST_LAST = """Smith Johnson Wilson Taylor Anderson Thomas Jackson Harris Clark Lewis Robinson Walker Hall Allen King Wright Scott
Moore Baker Cooper""".split()
TRAIN_KINDS = """apple lemon rye cheese plum honey garlic oat cherry walnut pumpkin almond carrot ginger fig olive potato corn poppy
vanilla chocolate onion raisin butter mint blue wool paper glass clay cotton silver red garden tin leather straw wooden brass linen
green picture orange steel plastic stone small large heavy golden purple white black round square winter summer kitchen travel
school pocket striped painted folding electric wild fresh frozen dried spicy salted smoked roasted lime mango melon grape peach
rice bean tomato pepper cream maple nutmeg saffron basil rosemary rubber denim crystal ceramic feather satin pine oak cedar""".split()
TRAIN_THINGS = """pies tarts rolls cakes biscuits cookies muffins brownies scones croissants snaps bars sticks pasties eclairs
tortes buns pretzels candles mugs scarves lanterns bowls pots towels spoons notebooks chairs boxes belts hats trays bells napkins
lamps frames jars cups forks knives ladders mirrors clocks carpets curtains blankets pillows brushes buckets brooms gloves socks
coats shirts ties purses wallets stools tables shelves benches desks doors vases statues puzzles kites drums flutes whistles ropes
hammers nails screws boards tiles bricks pipes wires pans plugs fans pumps soups salads sauces jams syrups crackers noodles""".split()
TEST_KINDS = """coffee sugar milk water fish beef egg fruit party office baby dog sweet soft light dark fine thin double
spring""".split()
TEST_THINGS = """bags plates books toys cards balls rings flags maps pens glasses signs""".split()

TRAIN_PATTERNS = """Hi, this is {name}. Could I get {count} {item} for {day}?
{name} here, I need {count} {item} on {day}.
Please put {count} {item} aside for {name}, pick-up {day}.
I would like to order {count} {item}. It is {name}, and {day} would be great.
For {day}: {count} {item}, under the name {name}.
Good morning! {count} {item} for {name} please, {day} if possible.
Can you have {count} {item} ready by {day}? My name is {name}.
Order for {name}: {count} {item}, {day}.
My name is {name} and I want {count} {item} this {day}.
{day} works best for me. {count} {item} please. Thanks, {name}
We are having guests on {day}, so {count} {item} please. {name}
Hello, {name} speaking. Do you still have {item}? I'd take {count} of them on {day}.
Would it be possible to collect {count} {item} on {day}? The name is {name}.
Put me down for {count} {item}, {day} morning, {name}.
{count} {item} for {day}, please. Regards, {name}
Dear shop, {name} would like {count} {item} delivered on {day}.
Hey! Save {count} {item} for me until {day}, ok? {name}
It's {name} again. Same as always, {count} {item}, but on {day}.
I'm {name}. On {day} I will pick up {count} {item}.
Could {name} have {count} {item}? She comes by on {day}.
My boss {name} needs {count} {item} before {day}.
{item}, {count} of them, for {day}. Name: {name}.
Next {day} I need {count} {item}; please note it for {name}.
Reserve {count} {item} for {name} and we will come on {day}.
Is {day} fine for {count} {item}? {name} is asking.
On {day} please send {count} {item} to {name}.
{name} wants {count} {item}. When? {day}.
Just {count} {item} this time, for {name}, on {day} evening.
I forgot to order! {count} {item}, {day}, and the name is {name}.
Let {name} know that the {count} {item} are booked for {day}.
If you can manage {count} {item} by {day}, that would be lovely. Yours, {name}
The party is on {day}. Please prepare {count} {item} for {name}.
Kindly arrange {count} {item} for our customer {name}, due {day}.
This is a message for the shop: {name}, {count} {item}, {day}. Thank you!
You can expect {name} on {day}, who will fetch {count} {item}.
May I change my order to {count} {item}? Still {day}, still {name}.""".split("\n")
TEST_PATTERNS = """Greetings from {name}! I'd be happy with {count} {item} come {day}.
Please write down: {day}, {count} {item}, customer {name}.
My mother, {name}, asked me to buy {count} {item} from you on {day}.
How about {count} {item} for {day}? I am called {name}.
{name} phoned and ordered {count} {item}; she will be here {day}.
I will need {count} {item} no later than {day}. Sign it {name}.
So that's {count} {item} on {day} for me, {name}.
Add {count} {item} to the list of {name}, to be ready {day}.
We talked yesterday: {name}, {day}, {count} {item}.
To whom it may concern, {count} {item} should go to {name} this coming {day}.""".split("\n")


def records(rng, count, patterns, firsts, lasts, kinds, things):
    seen, rows = set(), []
    while len(rows) < count:
        order = patterns[len(rows) % len(patterns)]
        name = rng.choice(firsts) + (" " + rng.choice(lasts) if rng.random() < 0.6 else "")
        item, day = rng.choice(kinds) + " " + rng.choice(things), rng.choice(DAYS)
        word, number = rng.choice(list(NUMBERS.items()))
        shown = word if rng.random() < 0.75 else str(number)
        text = order.format(name=name, item=item, count=shown, day=day)
        text = text[0].upper() + text[1:]
        if text in seen:
            continue
        seen.add(text)
        answer = json.dumps({"name": name, "item": item, "count": number, "day": day})
        rows.append({"messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text},
                                  {"role": "assistant", "content": answer}]})
    rng.shuffle(rows)
    return rows


def main():
    out = pathlib.Path(__file__).resolve().parent.parent / "recipes" / "demo"
    rng = random.Random(20231)
    train = records(rng, 432, TRAIN_PATTERNS, TRAIN_FIRST, TRAIN_LAST, TRAIN_KINDS, TRAIN_THINGS)
    test = records(rng, 40, TEST_PATTERNS, TEST_FIRST, TEST_LAST, TEST_KINDS, TEST_THINGS)
    for name, rows in (("train", train), ("heldout", test)):
        (out / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


if __name__ == "__main__":
    main()
