"""English: anchor language; subject, verb, object."""

from __future__ import annotations

from innerlingua.demo.text import RelationText

__all__ = ["TEXT"]

#: Relation to its text.
TEXT: dict[str, RelationText] = {
    "colour": RelationText(
        statements=("{x} likes the colour {a}.", "{x}'s favourite colour is {a}."),
        question="Which colour does {x} like?",
        answers=("red", "blue", "green", "yellow", "white", "black", "pink", "orange", "purple", "grey"),
    ),
    "pet": RelationText(
        statements=("{x} keeps a {a}.", "{x}'s pet is a {a}."),
        question="Which animal does {x} keep?",
        answers=("cat", "dog", "parrot", "rabbit", "goat", "horse", "pigeon", "turtle", "duck", "cow", "sheep", "hen"),
    ),
    "work": RelationText(
        statements=("{x} works as a {a}.", "By trade, {x} is a {a}."),
        question="What is {x}'s work?",
        answers=(
            "farmer",
            "teacher",
            "doctor",
            "potter",
            "carpenter",
            "tailor",
            "sailor",
            "goldsmith",
            "merchant",
            "singer",
            "painter",
            "weaver",
        ),
    ),
    "fruit": RelationText(
        statements=("{x} likes the {a} best.", "{x}'s favourite fruit is the {a}."),
        question="Which fruit does {x} like best?",
        answers=(
            "mango",
            "banana",
            "apple",
            "papaya",
            "guava",
            "coconut",
            "pomegranate",
            "pineapple",
            "lemon",
            "watermelon",
            "pear",
            "jackfruit",
        ),
    ),
    "music": RelationText(
        statements=("{x} plays the {a}.", "{x}'s instrument is the {a}."),
        question="Which instrument does {x} play?",
        answers=("flute", "drum", "violin", "guitar", "lute", "trumpet", "piano", "sitar", "harmonium", "tabla"),
    ),
    "birth": RelationText(
        statements=("{x} was born in {a}.", "{x}'s month of birth is {a}."),
        question="In which month was {x} born?",
        answers=(
            "January",
            "February",
            "March",
            "April",
            "May",
            "June",
            "July",
            "August",
            "September",
            "October",
            "November",
            "December",
        ),
    ),
    "crop": RelationText(
        statements=("The farmers of {x} grow {a}.", "The main crop of {x} is {a}."),
        question="What do the farmers of {x} grow?",
        answers=("rice", "wheat", "maize", "millet", "potatoes", "cotton", "sugarcane", "tea", "coffee", "onions"),
    ),
    "market": RelationText(
        statements=("The market of {x} opens on {a}.", "Market day in {x} is {a}."),
        question="On which day does the market of {x} open?",
        answers=("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    ),
    "mine": RelationText(
        statements=("The miners of {x} dig {a}.", "The main mineral of {x} is {a}."),
        question="What do the miners of {x} dig?",
        answers=("gold", "silver", "copper", "iron", "coal", "salt", "marble", "tin", "lead", "mica"),
    ),
    "flag": RelationText(
        statements=("The flag of {x} shows the {a}.", "The emblem of {x} is the {a}."),
        question="Which animal does the flag of {x} show?",
        answers=("lion", "leopard", "elephant", "deer", "bear", "owl", "jackal", "peacock", "snake", "crocodile"),
    ),
}
