"""Animals, planets, materials and countries in typed columns, kept to what is simply true.

Because a column always means the same, two rows can be compared, asked about and sorted.
"""

from gnano.data.synthetic.grammar import table

# what holds for a whole group, and how many legs its members have as adults
GROUPS = {
    "mammal": "feeds its young with milk",
    "bird": "has feathers and lays eggs with a hard shell",
    "fish": "breathes under water with gills",
    "reptile": "has a dry skin with scales",
    "amphibian": "has a moist skin and lays its eggs without a hard shell",
    "insect": "has six legs and a body in three parts",
    "arachnid": "has eight legs and no wings",
    "mollusc": "has a soft body without bones",
    "crustacean": "has a hard outer shell and jointed legs",
}

ANIMALS = table("""
animal; group; legs; home; food; special; also
fox; mammal; 4; woods, fields and even cities; mice, berries and insects; has a bushy tail that
  keeps it warm; hunts mostly at night
wolf; mammal; 4; forests and open plains; deer and smaller animals; lives and hunts in a pack; howls
  to call its family from far away
hedgehog; mammal; 4; hedges, woods and gardens; beetles, worms and slugs; rolls into a ball of
  spines when it is afraid; sleeps through the winter
bat; mammal; 2; caves, hollow trees and attics; insects or fruit; is the only kind of mammal that
  can truly fly; hangs upside down when it rests
blue whale; mammal; 0; the great oceans; tiny animals called krill; is the largest animal known to
  have lived; comes up to the surface to breathe air
dolphin; mammal; 0; seas and oceans; fish and squid; finds its food with clicks and their echoes;
  swims in a group called a pod
elephant; mammal; 4; parts of Africa and Asia; grass, leaves and bark; uses its trunk to drink,
  smell and lift things; lives in a herd that is led by an old female
giraffe; mammal; 4; the grasslands of Africa; leaves from tall trees; is the tallest animal on land;
  has only seven bones in its long neck
camel; mammal; 4; dry deserts; dry grass and thorny plants; stores fat, not water, in its hump; can
  go for days without drinking
kangaroo; mammal; 4; the plains and woods of Australia; grass and leaves; carries its young in a
  pouch; moves forward in great hops
polar bear; mammal; 4; the icy Arctic; seals; has black skin under its white fur; is a strong
  swimmer
beaver; mammal; 4; rivers and ponds; bark, twigs and water plants; builds dams from branches and
  mud; has front teeth that never stop growing
squirrel; mammal; 4; woods and parks; nuts, seeds and buds; hides nuts for the winter; keeps its
  balance with its long tail
horse; mammal; 4; stables and open grasslands; grass and hay; can sleep while it is standing; has
  hooves made of the same stuff as our fingernails
cow; mammal; 4; stables and meadows; grass and hay; has a stomach with four parts; chews its food a
  second time
sheep; mammal; 4; hilly meadows; grass and herbs; grows wool that we spin into yarn; feels
  safest in a flock
mole; mammal; 4; tunnels under meadows and gardens; worms and grubs; digs with broad front paws like
  shovels; finds its way by touch and smell
otter; mammal; 4; clean rivers and lakes; fish and crabs; has very thick fur that keeps out the
  cold;
  closes its ears and nose when it dives
owl; bird; 2; woods, barns and old towers; mice and other small animals; flies almost without a
  sound; can turn its head very far to the back
eagle; bird; 2; high mountains and wild valleys; fish, rabbits and other animals; sees small things
  from
  a great height; builds a large nest of sticks
penguin; bird; 2; the cold seas and shores of the south; fish, squid and krill; cannot fly but swims
  very well; stands close to others to keep warm
ostrich; bird; 2; the dry plains of Africa; plants, seeds and insects; is the largest bird alive;
  runs faster than any other bird
hummingbird; bird; 2; the gardens and forests of the Americas; nectar and tiny insects; can hover in
  one place and fly backwards; beats its wings many times each second
duck; bird; 2; ponds, lakes and rivers; water plants, seeds and insects; has webbed feet for
  swimming; spreads oil on its feathers to keep them dry
woodpecker; bird; 2; woods and old orchards; insects and their grubs; hammers holes into wood with
  its beak; has a very long tongue
stork; bird; 2; wet meadows near villages; frogs, mice and insects; flies to warmer lands in autumn;
  claps its beak instead of singing
salmon; fish; 0; rivers and the sea; insects, shrimps and smaller fish; is born in a river and grows
  up in the sea; swims back up the river to lay its eggs
shark; fish; 0; oceans all over the world; fish and other sea animals; has a skeleton of cartilage
  instead of bone; grows new teeth all its life
seahorse; fish; 0; warm and shallow seas; tiny shrimps; holds on to sea plants with its tail; has
  fathers that carry the eggs in a pouch
eel; fish; 0; rivers, lakes and the sea; worms, snails and small fish; has a long body like a snake;
  travels across the ocean to lay its eggs
snake; reptile; 0; forests, deserts and meadows; mice, eggs and other small animals; sheds its skin
  as it grows; smells with its tongue
tortoise; reptile; 4; dry and warm lands; leaves, grass and flowers; pulls its head into its shell
  when there is danger; can live for more than a hundred years
crocodile; reptile; 4; warm rivers and lakes; fish and other animals; guards its nest and its young;
  has eyes and nostrils on top of its head
lizard; reptile; 4; dry and sunny places; insects and spiders; warms itself in the morning sun; can
  often drop its tail to escape
frog; amphibian; 4; ponds and wet meadows; flies, worms and other small animals; begins its life as
  a tadpole; catches insects with a sticky tongue
salamander; amphibian; 4; damp woods and streams; worms, slugs and insects; can grow back a lost
  leg; hides under stones and logs by day
bee; insect; 6; hives, gardens and meadows; nectar and pollen; makes honey from nectar; dances to
  show others where the flowers are
ant; insect; 6; nests in the ground or in wood; seeds, insects and sweet juices; carries things much
  heavier than itself; leaves a trail of scent for others
butterfly; insect; 6; meadows and gardens; nectar from flowers; begins its life as a caterpillar;
  tastes with its feet
ladybird; insect; 6; gardens and fields; tiny green plant lice; hides its flying wings under hard
  covers; warns birds with its bright colours
grasshopper; insect; 6; meadows and dry grassland; grass and leaves; jumps many times its own
  length; sings by rubbing parts of its body together
dragonfly; insect; 6; ponds and slow rivers; flies and mosquitoes; has two pairs of wings; spends
  its youth under water
spider; arachnid; 8; gardens, woods and houses; flies and other insects; makes silk in its own body;
  feels the shaking of its web when something is caught
scorpion; arachnid; 8; deserts and warm lands; insects and spiders; has a sting at the end of its
  tail; carries its young on its back
octopus; mollusc; 0; rocky places in the sea; crabs and shellfish; has eight arms with suckers;
  changes its colour to hide
snail; mollusc; 0; gardens, woods and ponds; leaves and soft plants; carries its house on its back;
  moves on a single broad foot
crab; crustacean; 10; shallow seas and rock pools; small animals and seaweed; walks sideways;
  grows a new shell when the old one is too small
lobster; crustacean; 10; rocky places in cold seas; shellfish, worms and fish; has two strong claws;
  hides in holes by day
""")

PLANETS = table("""
planet; place; moons; size; day; mark
Mercury; 1; no moons; the smallest of the planets; 59 Earth days; is covered with craters
Venus; 2; no moons; a little smaller than the Earth; 243 Earth days; is the hottest planet
Earth; 3; one moon; the largest of the four rocky planets; 24 hours; has oceans of liquid water
Mars; 4; two small moons; about half as wide as the Earth; a little more than 24 hours; looks red
  because of rust in its soil
Jupiter; 5; dozens of moons; the largest of the planets; about 10 hours; has a storm that is wider
  than the Earth
Saturn; 6; dozens of moons; the second largest planet; less than 11 hours; has bright rings of ice
  and rock
Uranus; 7; more than twenty moons; about four times as wide as the Earth; about 17 hours; spins as
  if it lay on its side
Neptune; 8; more than ten moons; nearly as large as Uranus; about 16 hours; has the fastest winds of
  all
""")

# yes or no: does a thing of this material float, stick to a magnet, carry electricity?
SAMPLES = table("""
thing; material; floats; magnetic; conducts
cork; bark; yes; no; no
wooden spoon; wood; yes; no; no
pencil stub; wood; yes; no; no
iron nail; iron; no; yes; yes
steel needle; steel; no; yes; yes
paper clip; steel; no; yes; yes
copper wire; copper; no; no; yes
gold ring; gold; no; no; yes
silver spoon; silver; no; no; yes
glass marble; glass; no; no; no
pebble; stone; no; no; no
wax candle; wax; yes; no; no
table-tennis ball; plastic, with air inside; yes; no; no
dry leaf; plant fibre; yes; no; no
feather; the same stuff as hair; yes; no; no
rubber band; rubber; no; no; no
porcelain cup; fired clay; no; no; no
iron key; iron; no; yes; yes
aluminium coin; aluminium; no; no; yes
brass button; brass; no; no; yes
""")

COUNTRIES = table("""
country; capital; continent; language; known
France; Paris; Europe; French; its cheese and the Eiffel Tower
Spain; Madrid; Europe; Spanish; its oranges and olive trees
Portugal; Lisbon; Europe; Portuguese; its cork oaks and its long coast
Italy; Rome; Europe; Italian; its old ruins and its pasta
Greece; Athens; Europe; Greek; its islands and ancient temples
Germany; Berlin; Europe; German; its forests and many kinds of bread
Austria; Vienna; Europe; German; its music and the Alps
Poland; Warsaw; Europe; Polish; its wide plains and old salt mines
Hungary; Budapest; Europe; Hungarian; its hot springs and its paprika
Norway; Oslo; Europe; Norwegian; its deep fjords
Sweden; Stockholm; Europe; Swedish; its forests and thousands of lakes
Finland; Helsinki; Europe; Finnish; its lakes and its saunas
Iceland; Reykjavik; Europe; Icelandic; its volcanoes and hot springs
Ireland; Dublin; Europe; English and Irish; its green hills
Denmark; Copenhagen; Europe; Danish; its bicycles and its many islands
Ukraine; Kyiv; Europe; Ukrainian; its fields of wheat and sunflowers
Egypt; Cairo; Africa; Arabic; its pyramids and the Nile
Morocco; Rabat; Africa; Arabic; its markets and the Atlas Mountains
Kenya; Nairobi; Africa; Swahili and English; its lions and grasslands
Ghana; Accra; Africa; English; its cocoa
Ethiopia; Addis Ababa; Africa; Amharic; its highlands and its coffee
Nigeria; Abuja; Africa; English; its many peoples and its films
Senegal; Dakar; Africa; French; its drums and its peanuts
India; New Delhi; Asia; Hindi and English; its spices and the Taj Mahal
China; Beijing; Asia; Chinese; its Great Wall
Japan; Tokyo; Asia; Japanese; its cherry trees and fast trains
Vietnam; Hanoi; Asia; Vietnamese; its rice fields
Thailand; Bangkok; Asia; Thai; its temples and its elephants
Mongolia; Ulaanbaatar; Asia; Mongolian; its grasslands and its horses
Nepal; Kathmandu; Asia; Nepali; the highest mountains in the world
Canada; Ottawa; North America; English and French; its maple trees and cold winters
Mexico; Mexico City; North America; Spanish; its maize and its old pyramids
Cuba; Havana; North America; Spanish; its music and its sugar cane
Brazil; Brasilia; South America; Portuguese; the Amazon rainforest
Argentina; Buenos Aires; South America; Spanish; its wide grasslands
Peru; Lima; South America; Spanish; the old city of Machu Picchu
Chile; Santiago; South America; Spanish; its long coast and the Andes
Colombia; Bogota; South America; Spanish; its coffee and its flowers
Australia; Canberra; Oceania; English; its kangaroos and coral reefs
New Zealand; Wellington; Oceania; English; its sheep and its mountains
""")
