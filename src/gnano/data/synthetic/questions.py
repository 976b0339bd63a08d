"""Why is that so? Questions with their answers, words with their meanings, things to do."""

from gnano.data.synthetic.grammar import table

# each answer is in two steps: what happens, and where else we meet it
WHYS = table("""
question; guess; reason; example
does ice float on water; because ice is cold; water grows larger when it freezes, so ice is lighter
  than the same amount of water; a full bottle can burst in the freezer
is the sky blue; because the sea is blue; the air scatters blue light more than red light, so blue
  comes to us from all sides; at sunset the light takes a longer way through the air, and we see
  more red
do we see lightning before we hear thunder; because our eyes are in front of our ears; light is far
  faster than sound; we also see a distant hammer fall before we hear the blow
do leaves look green; because they drink green water; they hold a green stuff that catches the light
  of the Sun; in autumn it fades, and yellow and red can be seen
do we have day and night; because the Sun goes out in the evening; the Earth turns, and only the
  side that faces the Sun is lit; when it is noon here, it is midnight on the other side of the
  world
do we have seasons; because the Sun is nearer in summer; the axis of the Earth is tilted, so each
  half of the world gets more sunlight for a part of the year; it is winter in Australia when it is
  summer in Europe
does bread dough rise; because flour is light; the yeast in it makes bubbles of gas; the holes in a
  slice of bread are the traces of those bubbles
does a puddle dry up; because the street drinks it; the water turns into vapour and mixes with the
  air; wet clothes dry on the line for the same reason
does iron rust; because it is old; iron joins with oxygen from damp air; paint or oil keeps the air
  away and protects it
does a spoon in hot soup get hot; because soup climbs up; metal carries heat from one end to the
  other; a wooden spoon stays cool much longer
do we wear light clothes in summer; because they weigh less; light colours throw back more sunlight
  than dark ones; a dark car gets hotter in the sun than a white one
does a ball fall to the ground; because it is tired; the Earth pulls everything toward its centre;
  the same pull keeps the Moon on its path
do we sweat when we run; because the body is full of water; sweat takes heat from the skin when it
  dries; a dog cools itself in a similar way when it pants
do birds fly south in autumn; because they follow the clouds; in winter there is too little food in
  the north; in spring they return, when insects are plentiful
do flowers have bright colours; because they want to be pretty; bright colours attract insects,
  which carry pollen from flower to flower; flowers that use the wind, like those of grass, are
  often plain
is the sea salty; because fish are salty; rivers carry a little salt from the rocks into the sea,
  and only the water leaves again as vapour; some lakes without an outlet are salty, too
do we see our breath on a cold day; because we breathe out smoke; the warm vapour in our breath
  turns into tiny drops; clouds form in the same way
does a shadow get long in the evening; because it is tired of the day; the Sun is low, so its light
  comes from the side; at noon, when the Sun is high, shadows are short
does a drinking straw work; because we pull on the drink; when we suck out the air, the pressure of
  the air outside pushes the drink up; with a hole in the straw it does not work
does oil float on water; because oil is sticky; oil is lighter than the same amount of water, and
  the two do not mix; that is why a salad dressing must be shaken
do we rub our hands when we are cold; because it is polite; rubbing makes heat; brakes get hot for
  the same reason
do cats have whiskers; because they are old; whiskers feel what is near, even in the dark; a cat can
  tell if it fits through a gap
do plants need light; because they are afraid of the dark; with the energy of light they make sugar
  from water and air; a plant in a dark cupboard grows pale
do stones sink while big ships float; because ships have sails; a ship is hollow, so it pushes aside
  water that weighs as much as the whole ship; a ball of clay sinks, but a bowl of the same clay
  floats
does sugar vanish in tea; because the tea eats it; it breaks into pieces too small to see; when the
  tea dries up, the sugar is still in the cup
do we need to sleep; because the night is boring; during sleep the body repairs itself and the brain
  sorts what it has learned; after a short night it is hard to pay attention
do the tides rise and fall; because the sea breathes; the Moon, and a little the Sun, pulls at the
  water of the seas; most coasts have two high tides a day
does a compass point north; because north is cold; the Earth itself acts like a large magnet; the
  needle turns until it lines up with it
do we hear an echo; because someone answers; the sound is thrown back by a wall or a hill; bats find
  their way with echoes
does popcorn pop; because it is angry; water inside the grain turns into steam until the shell
  bursts; a grain with a cracked shell does not pop
does soap clean greasy hands; because it smells good; one end of each tiny piece of soap holds on to
  water and the other to fat; so the water can carry the fat away
do stars twinkle; because they switch on and off; their light is shaken a little by moving air on
  its way to us; seen from space, stars do not twinkle
does a thick scarf keep us warm; because it makes heat; it holds still air, which carries heat
  poorly; birds puff up their feathers for the same reason
do onions make us cry; because they are sad; a cut onion gives off a gas that stings the eyes; a
  sharp knife and a cold onion make it less
does milk turn sour; because it is lonely; tiny bacteria change its sugar into acid; in the cold
  they work much more slowly
do we put salt on icy roads; because salt is warm; salty water freezes only at a lower temperature;
  when it is extremely cold, salt no longer helps
""")

WORDS = table("""
word; sort; meaning; use
ancient; adjective; very old, from a time long ago; {name} saw an ancient wall that was built two
  thousand years ago
fragile; adjective; easy to break; {name} wrapped the fragile glasses in paper
patient; adjective; able to wait without getting angry; {name} was patient and waited until the glue
  was dry
curious; adjective; eager to know or learn something; {name} was so curious that {he} opened the box
  at once
generous; adjective; glad to give and to share; {name} was generous and gave away half of the cake
transparent; adjective; letting light through so that we can see what is behind; {name} looked
  through the transparent lid
enormous; adjective; very, very big; {name} found an enormous pumpkin behind the shed
steep; adjective; rising or falling sharply; {name} had to rest twice on the steep hill
hollow; adjective; empty inside; {name} hid a letter in the hollow tree
rare; adjective; not often seen or found; {name} has a rare stamp from an island
to borrow; verb; to take something for a time and give it back later; {name} went to borrow a ladder
  from the neighbour
to measure; verb; to find out how long, heavy or warm something is; {name} used a ruler to measure
  the table
to repair; verb; to make something whole again; {name} tried to repair the old radio
to whisper; verb; to speak very softly; {name} had to whisper in the library
to predict; verb; to say what will happen before it does; {name} looked at the clouds to predict the
  weather
to float; verb; to stay on top of water or in the air; {name} watched a feather float in the pond
to harvest; verb; to gather crops when they are ripe; {name} helped to harvest the grapes
to compare; verb; to look at what is the same and what is different; {name} wanted to compare the
  two maps
to freeze; verb; to turn from a liquid into a solid by cold; {name} left a cup of water outside to
  see it freeze
to invent; verb; to think of something new and make it; {name} wanted to invent a machine that sorts
  socks
an island; noun; a piece of land with water all around it; {name} rowed to the island in the lake
a harbour; noun; a safe place for ships near the land; {name} counted eleven ships in the harbour
an orchard; noun; a place where fruit trees are planted; {name} picked pears in the orchard
a shelter; noun; a place that protects from rain, wind or danger; {name} built a shelter from
  branches
a neighbour; noun; someone who lives near you; {name} brought soup to a neighbour who was ill
a promise; noun; words by which we say that we will surely do something; {name} kept the promise and
  came at six
a habit; noun; something we do so often that we hardly think about it; {name} had the habit of
  reading at breakfast
a shadow; noun; a dark shape where light is blocked; {name} jumped over the shadow of the tower
a recipe; noun; a list of what is needed and the steps for cooking a dish; {name} followed the
  recipe for bean soup
a journey; noun; a trip from one place to another, often a long one; {name} packed bread for the
  journey
a signal; noun; a sign that tells someone something; {name} gave the signal with a lamp
an experiment; noun; a test that we make to find something out; {name} did an experiment with salt
  and ice
a pattern; noun; something that repeats in a regular way; {name} drew a pattern of stars and circles
a surface; noun; the outside or the top of something; {name} saw the stars on the surface of the
  lake
an opinion; noun; what someone thinks about something; {name} had another opinion, and that was fine
""")

# the steps are parted by '/'; done is how one knows that it went well
TASKS = [
    (row["goal"], row["needs"], row["steps"].split(" / "), row["done"])
    for row in table("""
goal; needs; steps; done
make a cup of tea; a kettle, a cup, tea leaves and water; fill the kettle with fresh water / bring
  the water to the boil / put a spoonful of tea into the cup / pour the hot water over the tea /
  wait for three or four minutes / take out the leaves; the tea has a clear, dark colour
boil an egg; an egg, a small pot and water; fill the pot with water / let the water boil / lower the
  egg in with a spoon / wait for about eight minutes / cool the egg in cold water / peel off the
  shell; the yolk is firm but not dry
plant a bean; a bean, a pot, some soil and water; put a few stones on the bottom of the pot / fill
  the pot with soil / push the bean in as deep as a finger tip / water the soil a little / put the
  pot in a warm and bright place / keep the soil damp; a green shoot breaks through the soil after a
  week or so
fold a paper boat; one sheet of paper; fold the sheet in half from top to bottom / fold the two
  upper corners to the middle / turn up the edges at the bottom on both sides / open it and press it
  flat into a square / fold both lower corners up / pull the two outer tips apart; it stands on its
  own and floats
wash the hands; water, soap and a towel; wet the hands / take some soap / rub the palms and the
  backs of the hands / clean between the fingers / go on for twenty seconds / rinse off the soap /
  dry the hands well; the hands feel clean and no foam is left
bake a loaf of bread; flour, water, yeast and salt; mix the flour with yeast and salt / add warm
  water / knead the dough for ten minutes / let it rise under a cloth for an hour / shape it into a
  loaf / bake it in a hot oven / let it cool on a rack; it sounds hollow when you knock on the
  bottom
make vegetable soup; carrots, potatoes, an onion, water and salt; wash the vegetables / peel and cut
  them into small cubes / fry the onion gently in a little oil / add the other vegetables / cover
  everything with water / cook it until all is soft / add salt to taste; a fork goes easily through
  the potatoes
mend a flat bicycle tyre; tyre levers, a patch, glue and a pump; take off the wheel / lift the tyre
  from the rim with the levers / pull out the inner tube / pump it up and hold it in water to find
  the hole / dry and roughen the spot / glue on the patch / put everything back and pump it up; the
  tyre is still firm the next day
draw a map of a room; paper, a pencil, a ruler and a tape measure; measure the length and the width
  of the room / choose how many steps on paper stand for one metre / draw the walls / mark the door
  and the windows / measure the furniture / draw each piece in its place / write down the scale; a
  friend can find every chair with it
make a kite; two thin sticks, light paper, glue and string; tie the sticks together as a cross / run
  a string around the four ends / lay the frame on the paper / cut the paper a little larger than
  the frame / fold the edges over the string and glue them / tie the long string to the middle / add
  a tail; it climbs when you run against the wind
paint a fence; a brush, paint, sandpaper and old clothes; choose a dry day / brush the dust off the
  boards / smooth rough places with sandpaper / stir the paint / paint each board from top to bottom
  / let the first coat dry / paint a second coat; no bare wood can be seen
make lemonade; three lemons, sugar, water and a jug; wash the lemons / cut them in half / squeeze
  out the juice / stir the sugar into a little warm water / pour the juice and the sweet water into
  the jug / fill it up with cold water / taste it; it is neither too sour nor too sweet
pack a bag for a hike; a bag, water, food, a map and a warm jacket; look at the weather / write a
  list / put heavy things close to the back / place the food where it is not crushed / keep the map
  within reach / fill the water bottle / check the list once more; the bag feels light and nothing
  rattles
sew on a button; a button, a needle, thread and scissors; choose thread of the right colour / thread
  the needle / tie a knot at the end / push the needle up through the cloth and a hole of the button
  / go down through the next hole / repeat this five or six times / wind the thread under the button
  and tie it; the button sits firmly but can still move a little
make a compost heap; a shady corner, kitchen scraps, dry leaves and a fork; lay some twigs on the
  ground / add a layer of kitchen scraps / cover it with dry leaves / keep the heap damp but not wet
  / turn it over with the fork every few weeks / wait for some months; it has turned into dark,
  crumbly earth
cook rice; one cup of rice, two cups of water and a pinch of salt; rinse the rice in cold water /
  put it into a pot with the water and the salt / let it boil / put on the lid and turn down the
  heat / wait until the water is gone / let it stand for five minutes; the grains are soft and do
  not stick to the pot
build a simple rain gauge; a clear jar, a ruler and a pen that writes on glass; find a jar with
  straight sides / mark the centimetres on the outside / set it in an open place / make sure that it
  cannot tip over / read the height of the water each morning / write it down / empty the jar; you
  can say how much rain fell in a week
clean a window; a bucket, warm water, a little soap and two cloths; brush away cobwebs and dust /
  mix the water with the soap / wipe the glass with the wet cloth / begin at the top / dry it with
  the other cloth / polish the corners; you can see no streaks against the light
set the table; plates, knives, forks, spoons and glasses; wipe the table / put a plate in front of
  each chair / lay the fork on the left / lay the knife and the spoon on the right / put the glass
  above the knife / fold the napkins; everyone has all that is needed for the meal
write a letter; paper, a pen, an envelope and a stamp; write the date at the top / greet the person
  / give the reason for the letter / tell the news / ask a question / end with a kind wish and the
  name of the sender / write the address and put on the stamp; you have read it once more and found
  no mistakes
make a fruit salad; apples, bananas, oranges and a bowl; wash the fruit / peel the oranges and the
  bananas / cut everything into small pieces / put the pieces into the bowl / squeeze a little
  orange juice over them / mix everything gently; each spoonful has a bit of every fruit
tie a parcel; a box, paper, tape and string; put soft paper into the box / lay the gift inside /
  close the lid / wrap the box in strong paper / tape down the edges / wind the string around it
  both ways / tie a firm knot; nothing moves inside when you shake it
find north with the Sun; a straight stick, two small stones and a sunny day; push the stick into
  level ground before noon / mark the tip of its shadow with a stone / wait for half an hour / mark
  the new tip with the other stone / draw a line between the two stones / stand with the first stone
  on the left and the second on the right; you face about north if you live north of the tropics
grow salt crystals; salt, hot water, a glass and a thread; stir salt into hot water until no more
  dissolves / pour the clear liquid into the glass / hang the thread in it from a stick / put the
  glass where nobody moves it / wait for several days; small cubes glitter on the thread
""")
]
